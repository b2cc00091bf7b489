"use strict";
(() => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const byId = (id) => document.getElementById("map-" + id);
  const canvas = byId("canvas"), tip = byId("tip"), pen = canvas.getContext("2d");
  const count = data.ids.length, margin = 24;
  const view = { zoom: 1, x: data.places / 2, y: data.places / 2 };
  let column = data.columns[0] ?? null, only = null, chosen = -1, marked = [];

  // --- from items to pixels and back
  const size = () => ({ width: canvas.clientWidth, height: canvas.clientHeight });
  const scale = () => (view.zoom * (Math.min(size().width, size().height) - 2 * margin)) / data.places;
  const toPixels = (item) => {
    const { width, height } = size();
    return [width / 2 + (data.x[item] - view.x) * scale(), height / 2 - (data.y[item] - view.y) * scale()];
  };
  const group = (item) => (column === null || column.codes[item] === "-" ? -1 : Number(column.codes[item]));
  const isShown = (item) => only === null || group(item) === only;

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const named = (name) => style.getPropertyValue("--" + name).trim();
    const kind = column?.ordered ? "s" : "c";
    const last = column?.ordered ? Math.max(1, column.labels.length - 1) : 0;
    const labels = column?.labels ?? ["items"];
    const list = labels.map((label, place) => {
      if (!column?.ordered) return place < 8 ? named(kind + place) : named("other");
      return named(kind + Math.round((place * 5) / last));
    });
    return { list, none: column === null ? list[0] : named("none"), text: named("text"), card: named("card") };
  }

  function draw() {
    const { width, height } = size(), ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const { list, none, text, card } = colours();
    const radius = Math.min(7, Math.max(1.6, 60 / Math.sqrt(count))) * Math.min(2, Math.sqrt(view.zoom));
    const groups = new Map();
    for (let item = 0; item < count; item++) {
      const own = isShown(item) ? group(item) : "faded";
      if (!groups.has(own)) groups.set(own, []);
      groups.get(own).push(item);
    }
    for (const [own, items] of [...groups].sort(([a], [b]) => (a === "faded" ? -1 : b === "faded" ? 1 : a - b))) {
      pen.fillStyle = own === "faded" || own === -1 ? none : list[own];
      pen.globalAlpha = own === "faded" ? 0.35 : 0.85;
      pen.beginPath();
      for (const item of items) {
        const [x, y] = toPixels(item);
        if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
        pen.moveTo(x + radius, y);
        pen.arc(x, y, radius, 0, 2 * Math.PI);
      }
      pen.fill();
    }
    pen.globalAlpha = 1;
    for (const item of [...marked, ...(chosen >= 0 ? [chosen] : [])]) {
      const [x, y] = toPixels(item);
      for (const [colour, line] of [[card, 5], [text, 2]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = line;
        pen.beginPath();
        pen.arc(x, y, radius + 4, 0, 2 * Math.PI);
        pen.stroke();
      }
    }
    placeTip();
  }

  // --- the item that is pointed at
  const named = (item) => data.titles[item] || data.ids[item];
  const valueOf = (its, item) => (its.codes[item] === "-" ? "none" : its.labels[Number(its.codes[item])]);

  function choose(item, aloud = false) {
    if (item === chosen) return;
    chosen = item;
    tip.replaceChildren();
    if (item >= 0) {
      const add = (parent, kind, text) => {
        const child = parent.appendChild(document.createElement(kind));
        child.textContent = text;
        return child;
      };
      if (data.pictures[item]) {
        const picture = tip.appendChild(document.createElement("img"));
        picture.src = data.pictures[item];
        picture.alt = "";
      }
      add(tip, "strong", named(item));
      const list = tip.appendChild(document.createElement("dl"));
      for (const [name, value] of [["id", data.ids[item]], ...data.columns.map((its) => [its.name, valueOf(its, item)])]) {
        add(list, "dt", name);
        add(list, "dd", value);
      }
      if (aloud) byId("said").textContent = named(item) + (column ? `, ${column.name} ${valueOf(column, item)}` : "");
    }
    draw();
  }

  function placeTip() {
    tip.hidden = chosen < 0;
    if (chosen < 0) return;
    const [x, y] = toPixels(chosen), { width, height } = size();
    tip.style.left = Math.max(0, Math.min(x + 14, width - tip.offsetWidth)) + "px";
    tip.style.top = (y + 14 + tip.offsetHeight < height ? y + 14 : Math.max(0, y - 14 - tip.offsetHeight)) + "px";
  }

  function nearest(x, y) {
    let best = -1, least = 14 ** 2;
    for (let item = 0; item < count; item++) {
      if (!isShown(item)) continue;
      const [left, top] = toPixels(item), away = (left - x) ** 2 + (top - y) ** 2;
      if (away < least) [best, least] = [item, away];
    }
    return best;
  }

  /** The next item in view, from left to right; the first where none is chosen. */
  function step(by) {
    const { width, height } = size();
    const inView = [...Array(count).keys()].filter((item) => {
      const [x, y] = toPixels(item);
      return isShown(item) && x >= 0 && y >= 0 && x <= width && y <= height;
    });
    inView.sort((a, b) => data.x[a] - data.x[b] || a - b);
    if (!inView.length) return;
    const at = inView.indexOf(chosen);
    choose(inView[at < 0 ? 0 : (at + by + inView.length) % inView.length], true);
  }

  // --- moving
  function zoomBy(factor, x = size().width / 2, y = size().height / 2) {
    const before = scale();
    view.zoom = Math.min(200, Math.max(0.8, view.zoom * factor));
    const change = 1 / before - 1 / scale();
    view.x += (x - size().width / 2) * change;
    view.y -= (y - size().height / 2) * change;
    draw();
  }
  function move(right, down) {
    view.x += right / scale();
    view.y -= down / scale();
    draw();
  }
  function whole() {
    Object.assign(view, { zoom: 1, x: data.places / 2, y: data.places / 2 });
    draw();
  }

  let dragged = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    dragged = place(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (dragged && event.buttons) {
      move(dragged[0] - x, dragged[1] - y);
      dragged = [x, y];
    } else choose(nearest(x, y));
  });
  canvas.addEventListener("pointerup", (event) => {
    dragged = null;
    choose(nearest(...place(event)), true);
  });
  canvas.addEventListener("pointerleave", () => choose(-1));
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 400), ...place(event));
  }, { passive: false });
  const keys = {
    ArrowLeft: () => move(-60, 0), ArrowRight: () => move(60, 0), ArrowUp: () => move(0, -60), ArrowDown: () => move(0, 60),
    "+": () => zoomBy(1.4), "=": () => zoomBy(1.4), "-": () => zoomBy(1 / 1.4), 0: whole,
    n: () => step(1), p: () => step(-1), Escape: () => choose(-1),
  };
  canvas.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  byId("in").addEventListener("click", () => zoomBy(1.6));
  byId("out").addEventListener("click", () => zoomBy(1 / 1.6));
  byId("whole").addEventListener("click", whole);

  // --- colours and search
  function button(list, text) {
    const made = list.appendChild(document.createElement("li")).appendChild(document.createElement("button"));
    made.type = "button";
    made.append(text);
    return made;
  }
  function showLegend() {
    const legend = byId("legend"), { list, none } = colours();
    legend.replaceChildren();
    if (column === null) return;
    const groups = column.labels.map((label, code) => [label, code, list[code]]);
    if (column.codes.includes("-")) groups.push(["none", -1, none]);
    for (const [label, code, colour] of groups) {
      const key = button(legend, label), swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour;
      key.prepend(swatch);
      key.setAttribute("aria-pressed", String(only === code));
      key.addEventListener("click", () => {
        only = only === code ? null : code;
        for (const other of legend.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
        key.setAttribute("aria-pressed", String(only === code));
        draw();
      });
    }
  }
  const select = byId("colour");
  for (const [number, its] of data.columns.entries()) select.add(new Option(its.name, String(number)));
  select.addEventListener("change", () => {
    [column, only] = [data.columns[Number(select.value)], null];
    showLegend();
    draw();
  });
  byId("find").addEventListener("input", (event) => {
    const words = event.target.value.trim().toLowerCase(), found = byId("found");
    const has = (item) => data.titles[item].toLowerCase().includes(words) || data.ids[item].toLowerCase().includes(words);
    marked = words ? [...Array(count).keys()].filter(has).slice(0, 200) : [];
    found.replaceChildren();
    for (const item of marked.slice(0, 8)) {
      button(found, named(item)).addEventListener("click", () => {
        Object.assign(view, { zoom: Math.max(4, view.zoom), x: data.x[item], y: data.y[item] });
        choose(item, true);
        draw();
      });
    }
    if (words) byId("said").textContent = marked.length ? `${marked.length} found` : "nothing found";
    draw();
  });

  const unnamed = (its) => its.codes.split("-").length + (its.ordered || its.labels.length < 3 ? count : 0);
  if (column) column = data.columns.reduce((best, its) => (unnamed(its) < unnamed(best) ? its : best));
  select.value = String(data.columns.indexOf(column));
  const redraw = () => (showLegend(), draw());
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", redraw);
  redraw();
})();
