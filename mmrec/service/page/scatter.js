/** A scatter of many points on a canvas, with WebGL where there is one: drawn, moved, zoomed, and asked what is where. */

const VERTEX = `#version 300 es
in vec2 place; in vec4 colour; in float size; uniform vec3 view; uniform float grow; out vec4 tint;
void main() {
  gl_Position = vec4(place * view.z + view.xy, 0, 1);
  gl_PointSize = size * grow;
  tint = colour;
}`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec4 tint; out vec4 shown;
void main() {
  float away = length(gl_PointCoord - 0.5) * 2.0;
  float inside = 1.0 - smoothstep(0.8, 1.0, away);
  if (inside <= 0.0) discard;
  shown = vec4(tint.rgb, 1) * tint.a * inside;
}`;
const CELLS = 128;
const CLOSE = 18;
const MOST_ZOOM = 400;

/**
 * Points at `x`, `y` (any unit), in `colours` (four bytes each, as RGBA). `said` is told the place of the point that is
 * pointed at or moved to, or -1, and where it is on the canvas; `chosen` the one that is clicked.
 */
export class Scatter {
  constructor(canvas, x, y, colours, { said, chosen }) {
    Object.assign(this, { canvas, said, chosen, colours, at: -1, pointers: new Map() });
    this.places = normalised(x, y);
    this.cells = cells(this.places);
    this.paint = withWebGL(canvas, this.places, colours) ?? withCanvas(canvas, this.places);
    this.home();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  /** Everything in sight. */
  home() {
    this.view = { x: 0, y: 0, zoom: 0.94 };
    this.draw();
  }

  recolour(colours) {
    this.colours = colours;
    this.draw();
  }

  /** Closer by a factor, with a place of the canvas staying where it is. */
  zoom(factor, [left, top] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const [x, y] = this.toClip(left, top);
    const zoom = Math.min(MOST_ZOOM, Math.max(0.5, this.view.zoom * factor));
    const real = zoom / this.view.zoom;
    this.view = { x: x - (x - this.view.x) * real, y: y - (y - this.view.y) * real, zoom };
    this.draw();
  }

  move(left, top) {
    const [half, halfHigh] = this.halves();
    this.view = { ...this.view, x: this.view.x + left / half, y: this.view.y - top / halfHigh };
    this.draw();
  }

  /** Points at one, and moves it into sight. */
  point(at) {
    this.at = at;
    if (at >= 0) {
      const [left, top] = this.onCanvas(at);
      const { clientWidth: width, clientHeight: height } = this.canvas;
      const away = (value, size) => (value < 30 ? 30 - value : value > size - 30 ? size - 30 - value : 0);
      if (away(left, width) || away(top, height)) this.move(away(left, width), away(top, height));
    }
    this.draw();
    this.said(at, at < 0 ? null : this.onCanvas(at));
  }

  /** The nearest point to the right, left, up or down of the one pointed at; at first, the one nearest to the middle. */
  step(key) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.at < 0) return this.point(this.nearest(width / 2, height / 2, Infinity));
    const { at: from, places } = this;
    const [wide, high] = this.halves().map((half) => half * this.view.zoom);
    const [right, down] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    let [best, least] = [from, Infinity];
    for (let at = 0; at < places.length / 2; at += 1) {
      const aside = (places[2 * at] - places[2 * from]) * wide;
      const below = (places[2 * from + 1] - places[2 * at + 1]) * high;
      const along = aside * right + below * down;
      const across = Math.abs(aside * down) + Math.abs(below * right);
      if (along > 0.5 && across <= 2 * along && along + 2.5 * across < least) [best, least] = [at, along + 2.5 * across];
    }
    this.point(best);
  }

  // --- places -------------------------------------------------------------------------------------------------------

  halves() {
    return [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
  }

  toClip(left, top) {
    const [half, halfHigh] = this.halves();
    return [left / half - 1, 1 - top / halfHigh];
  }

  onCanvas(at) {
    const { x, y, zoom } = this.view;
    const [half, halfHigh] = this.halves();
    return [(1 + this.places[2 * at] * zoom + x) * half, (1 - this.places[2 * at + 1] * zoom - y) * halfHigh];
  }

  /** The point nearest to a place of the canvas, at most so many pixels away; -1 where there is none. */
  nearest(left, top, reach = CLOSE) {
    const [clipX, clipY] = this.toClip(left, top);
    const [x, y] = [(clipX - this.view.x) / this.view.zoom, (clipY - this.view.y) / this.view.zoom];
    const [wide, high] = this.halves().map((half) => half * this.view.zoom);
    let [best, least] = [-1, reach * reach];
    for (const at of this.cells(x, y, reach / wide, reach / high)) {
      const away = ((this.places[2 * at] - x) * wide) ** 2 + ((this.places[2 * at + 1] - y) * high) ** 2;
      if (away <= least) [best, least] = [at, away];
    }
    return best;
  }

  // --- drawing ------------------------------------------------------------------------------------------------------

  resize() {
    const scale = devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * scale);
    this.canvas.height = Math.round(this.canvas.clientHeight * scale);
    this.draw(true);
  }

  draw(now = false) {
    if (now) return this.paint(this.view, this.colours, this.at);
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.paint(this.view, this.colours, this.at);
    });
  }

  // --- pointers -----------------------------------------------------------------------------------------------------

  listen() {
    const { canvas, pointers } = this;
    const here = (event) => [event.offsetX, event.offsetY];
    let moved = 0;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), here(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, here(event));
      moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      const now = here(event);
      if (!before) {
        const at = this.nearest(...now);
        if (at !== this.at) {
          this.at = at;
          this.draw();
          this.said(at, at < 0 ? null : this.onCanvas(at));
        }
        return;
      }
      const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      if (others.length) this.zoom(distance(now, others[0]) / Math.max(1, distance(before, others[0])), others[0]);
      else this.move(now[0] - before[0], now[1] - before[1]);
      moved += distance(before, now);
      pointers.set(event.pointerId, now);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => {
        if (!pointers.delete(event.pointerId) || name === "pointercancel" || moved > 4) return;
        const at = this.nearest(...here(event));
        this.point(at);
        if (at >= 0) this.chosen(at);
      });
    }
  }
}

function distance([x, y], [otherX, otherY]) {
  return Math.hypot(x - otherX, y - otherY);
}

/** Pairs of places between -1 and 1: the axes of a map mean nothing, so each fills the canvas. */
function normalised(x, y) {
  const places = new Float32Array(2 * x.length);
  for (const [axis, values] of [x, y].entries()) {
    const [least, most] = range(values);
    const half = Math.max(most - least, 1e-9) / 2;
    for (let at = 0; at < values.length; at += 1) places[2 * at + axis] = (values[at] - (least + most) / 2) / half;
  }
  return places;
}

function range(values) {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}

/** The points in the cells of a grid around a place: so that few are looked at for each move of the pointer. */
function cells(places) {
  const cell = (value) => Math.min(CELLS - 1, Math.max(0, Math.floor(((value + 1) / 2) * CELLS)));
  const inside = Array.from({ length: CELLS * CELLS }, () => []);
  for (let at = 0; at < places.length / 2; at += 1) inside[cell(places[2 * at + 1]) * CELLS + cell(places[2 * at])].push(at);
  return function* around(x, y, wide, high) {
    for (let row = cell(y - high); row <= cell(y + high); row += 1) {
      for (let column = cell(x - wide); column <= cell(x + wide); column += 1) yield* inside[row * CELLS + column];
    }
  };
}

/** How large points are, in pixels: larger where there are few, and where one is close. */
function size(number, zoom) {
  const far = Math.min(11, Math.max(2.2, 90 / Math.sqrt(number)));
  return Math.min(16, far * Math.max(1, Math.sqrt(zoom)) ** 0.8);
}

function withWebGL(canvas, places, first) {
  const gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true });
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  const buffer = (name, data, width, type, isShare) => {
    const made = gl.createBuffer();
    const where = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(where);
    gl.vertexAttribPointer(where, width, type, isShare, 0, 0);
    return made;
  };
  buffer("place", places, 2, gl.FLOAT, false);
  const tints = buffer("colour", first, 4, gl.UNSIGNED_BYTE, true);
  const sizeAt = gl.getAttribLocation(program, "size");
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const uniform = (name) => gl.getUniformLocation(program, name);
  let held = first;
  return ({ x, y, zoom }, colours, at) => {
    if (colours !== held) {
      gl.bindBuffer(gl.ARRAY_BUFFER, tints);
      gl.bufferData(gl.ARRAY_BUFFER, colours, gl.STATIC_DRAW);
      held = colours;
    }
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform3f(uniform("view"), x, y, zoom);
    gl.uniform1f(uniform("grow"), devicePixelRatio || 1);
    gl.vertexAttrib1f(sizeAt, size(places.length / 2, zoom));
    gl.drawArrays(gl.POINTS, 0, places.length / 2);
    if (at < 0) return;
    gl.vertexAttrib1f(sizeAt, size(places.length / 2, zoom) + 9);
    gl.drawArrays(gl.POINTS, at, 1);
  };
}

function withCanvas(canvas, places) {
  const context = canvas.getContext("2d");
  return ({ x, y, zoom }, colours, at) => {
    const { width, height } = canvas;
    const wide = size(places.length / 2, zoom) * (devicePixelRatio || 1);
    const dot = (one, across) => {
      const [red, green, blue, alpha] = colours.subarray(4 * one, 4 * one + 4);
      context.fillStyle = `rgb(${red} ${green} ${blue} / ${alpha / 255})`;
      const [left, top] = [(1 + places[2 * one] * zoom + x) * width / 2, (1 - places[2 * one + 1] * zoom - y) * height / 2];
      context.fillRect(left - across / 2, top - across / 2, across, across);
    };
    context.clearRect(0, 0, width, height);
    for (let one = 0; one < places.length / 2; one += 1) dot(one, wide);
    if (at >= 0) dot(at, wide + 9);
  };
}
