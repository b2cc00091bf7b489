/** The catalog as a map: items that are like each other lie near each other. */

import { about, get } from "../api.js";
import { itemHref, name, thumbnail } from "../cards.js";
import { count, el, icon, later, short, styled } from "../dom.js";
import { NOUNS, empty, say, select } from "../pieces.js";
import { Scatter } from "../scatter.js";

const PALETTE = ["#4e79d6", "#e8743b", "#19a979", "#c94f9b", "#d9a514", "#7a5bd1", "#1aa3b8", "#d64550", "#6b8e23", "#a9744f"];
const OTHERS = "#8b93a1";
const RAMP = ["#3b3fb6", "#2c8fb8", "#3fbf8f", "#b8d23f", "#f6b73c"];
const KEYS = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 };

export async function render(parameters, signal) {
  const { columns, features, models } = await about();
  const title = el("h1", {}, "The map");
  if (features.map === false) return ["Map", title, empty("There is no map", "The store has no vectors to lay out yet.")];
  const colour = parameters.get("color") ?? likely(columns);
  const drawn = await get("map", { color: colour, model: parameters.get("model") }, signal);
  if (!drawn.item_ids.length) return ["Map", title, empty("The map is empty", "No item has a vector yet.")];
  const key = legend(drawn.color ?? drawn.item_ids.map(() => null));
  const go = (changes) => {
    location.hash = `#/map?${new URLSearchParams({ color: colour, ...changes })}`;
  };
  const choices = { "": "nothing", ...Object.fromEntries(columns.map((column) => [column.name, column.name])) };
  const by = drawn.by === "fused" ? "all modalities together" : (NOUNS[drawn.by] ?? drawn.by).toLowerCase();
  return ["Map",
    el("div", { class: "head" }, title, el("p", { class: "total" }, `${count(drawn.item_ids.length, "item")}, laid out by ${by}`)),
    el("div", { class: "controls" }, select("Colour by", choices, colour, (chosen) => go({ color: chosen })),
      models.length > 1 ? select("Model", Object.fromEntries(models.map((one) => [one.name, one.name])),
        parameters.get("model") ?? models[0].name, (chosen) => go({ model: chosen })) : null),
    field(drawn, key, signal)];
}

/** The column that tells most: a text with few values is likeliest one that the catalog's own people added. */
function likely(columns) {
  const own = columns.filter(({ name: column, kind }) => kind === "text" && !["item_id", "title", "description", "status"].includes(column));
  return (own.find(({ name: column }) => !column.includes("language")) ?? own[0])?.name ?? "";
}

function field(drawn, key, signal) {
  const canvas = el("canvas", { tabindex: "0", role: "application", "aria-label":
    "Map of the catalog. Arrow keys go from item to item, plus and minus zoom, Enter opens the item.", "aria-describedby": "pointed" });
  const pointed = el("div", { id: "pointed", class: "pointed", hidden: true });
  const open = (at) => (location.hash = itemHref(drawn.item_ids[at]));
  const tell = teller(drawn, pointed, signal);
  const scatter = new Scatter(canvas, drawn.x, drawn.y, key.bytes(null), {
    said: tell,
    chosen: open,
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key.startsWith("Arrow")) scatter.step(event.key);
    else if (event.key in KEYS) scatter.zoom(KEYS[event.key]);
    else if (event.key === "0") scatter.home();
    else if (event.key === "Enter" && scatter.at >= 0) open(scatter.at);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("pointerleave", () => scatter.point(-1));
  const button = (label, drawing, act) => el("button", { type: "button", "aria-label": label, title: label, onclick: act }, icon(drawing));
  return el("div", { class: "map" }, el("div", { class: "field" }, canvas, pointed,
    el("div", { class: "zoom", role: "group", "aria-label": "Zoom" },
      button("Closer", "plus", () => scatter.zoom(1.6)), button("Farther", "minus", () => scatter.zoom(1 / 1.6)),
      button("Everything", "reset", () => scatter.home()))),
  key.view((only) => scatter.recolour(key.bytes(only))));
}

/** Shows, beside the point, which item it is; what is asked of the service is asked once the pointer rests. */
function teller(drawn, pointed, signal) {
  const known = new Map();
  let wanted = -1;
  const fetch_ = later(120, (at) => {
    const item_id = drawn.item_ids[at];
    get("item", { item_id }, signal).then((item) => {
      known.set(at, item);
      if (wanted === at) fill(at);
    }, () => {}); // the id is shown already
  });
  const fill = (at) => {
    const item = known.get(at);
    const value = drawn.color?.[at];
    pointed.replaceChildren(...[item && thumbnail(item, { width: 160 }),
      el("span", { class: "title", dir: "auto" }, item ? name(item) : drawn.item_ids[at]),
      value === null || value === undefined ? null : el("span", { class: "under" }, String(value))].filter(Boolean));
    if (item) say(name(item));
  };
  return (at, place) => {
    wanted = at;
    pointed.hidden = at < 0;
    if (at < 0) return;
    styled(pointed, { left: `${place[0]}px`, top: `${place[1]}px` });
    pointed.classList.toggle("low", place[1] < 140);
    fill(at);
    if (!known.has(at)) fetch_(at);
  };
}

/** What colours mean: categories, the most frequent first, or a ramp of numbers. */
function legend(values) {
  const there = values.filter((value) => value !== null && value !== "");
  const isNumbers = there.length > 0 && there.every((value) => typeof value === "number");
  if (isNumbers) return ramp(values, there);
  const counts = new Map();
  for (const value of there) counts.set(String(value), (counts.get(String(value)) ?? 0) + 1);
  const names = [...counts].sort((one, other) => other[1] - one[1]).map(([value]) => value).slice(0, PALETTE.length);
  const places = new Map(names.map((value, at) => [value, at]));
  const group = (at) => places.get(String(values[at])) ?? -1;
  const rest = there.length - names.reduce((sum, value) => sum + counts.get(value), 0);
  return {
    bytes: (only) => colours(values, (at) => {
      const mine = group(at);
      return [mine < 0 ? OTHERS : PALETTE[mine], only === null || only === mine ? 1 : 0.12];
    }),
    view: (choose) => (names.length ? keys(names, counts, rest, choose) : null),
  };
}

function keys(names, counts, rest, choose) {
  let only = null;
  const buttons = names.map((value, at) => styled(el("button", { type: "button", "aria-pressed": "false", onclick: () => {
    only = only === at ? null : at;
    for (const [place, button] of buttons.entries()) button.setAttribute("aria-pressed", String(place === only));
    choose(only);
  } }, el("span", { class: "dot" }), el("span", { dir: "auto" }, value), el("span", { class: "under" }, String(counts.get(value)))),
  { colour: PALETTE[at] }));
  return el("div", { class: "legend", role: "group", "aria-label": "Show only" }, buttons,
    rest ? el("span", { class: "under" }, `and ${rest} of other values`) : null);
}

function ramp(values, there) {
  const [least, most] = [there.reduce((one, other) => Math.min(one, other)), there.reduce((one, other) => Math.max(one, other))];
  const step = (value) => Math.round(((value - least) / (most - least || 1)) * (RAMP.length - 1));
  return {
    bytes: () => colours(values, (at) => (typeof values[at] === "number" ? [RAMP[step(values[at])], 1] : [OTHERS, 0.5])),
    view: () => el("div", { class: "legend ramp" }, el("span", {}, short(least)), el("span", { class: "colours", "aria-hidden": "true" }), el("span", {}, short(most))),
  };
}

function colours(values, of) {
  const bytes = new Uint8Array(4 * values.length);
  for (let at = 0; at < values.length; at += 1) {
    const [hex, alpha] = of(at);
    bytes.set([1, 3, 5].map((from) => Number.parseInt(hex.slice(from, from + 2), 16)), 4 * at);
    bytes[4 * at + 3] = 255 * 0.88 * alpha;
  }
  return bytes;
}
