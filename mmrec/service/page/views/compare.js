/** Two models side by side, for one user: who ranks what where. */

import { about, get, post } from "../api.js";
import { row } from "../cards.js";
import { count, el, later, short } from "../dom.js";
import { empty, failed, select, waiting } from "../pieces.js";
import { noModel } from "./users.js";

const COMPARED = 20;

export async function render(parameters, signal) {
  const { models } = await about();
  const head = el("div", { class: "head" }, el("h1", {}, "Compare two models"));
  if (!models.length) return ["Compare", head, noModel()];
  if (models.length < 2) {
    return ["Compare", head, empty("There is one model", "Serve another beside it, as the fit of yesterday or with other settings:",
      el("code", {}, "mmrec serve --store store --model model --model other"))];
  }
  const names = models.map(({ name }) => name);
  const [left, right] = [parameters.get("left") ?? names[0], parameters.get("right") ?? names[1]];
  const userId = parameters.get("user") ?? "";
  const go = (changes) => {
    location.hash = `#/compare?${new URLSearchParams({ user: userId, left, right, ...changes })}`;
  };
  return [
    userId ? `Compare for ${userId}` : "Compare",
    head,
    form(names, left, right, userId, go, signal),
    userId ? waiting(both(userId, left, right, signal), (lists) => sides(lists, [left, right], models))
      : empty("For whom?", "Choose a user, and see what each model recommends."),
  ];
}

function form(names, left, right, userId, go, signal) {
  const choices = Object.fromEntries(names.map((name) => [name, name]));
  const known = el("datalist", { id: "known" });
  const field = el("input", { id: "user", value: userId, list: "known", required: true, autocomplete: "off" });
  const suggest = () => get("users", { prefix: field.value.trim(), limit: 20 }, signal).then(
    ({ items }) => known.replaceChildren(...items.map(({ user_id }) => el("option", { value: user_id }))),
    () => {}, // nothing to suggest: the id can still be typed
  );
  field.addEventListener("input", later(200, suggest));
  field.addEventListener("focus", suggest, { once: true });
  return el("form", { class: "controls", onsubmit: (event) => {
    event.preventDefault();
    go({ user: field.value.trim() });
  } },
  el("label", { class: "select" }, el("span", {}, "User"), field), known,
  select("Left", choices, left, (chosen) => go({ left: chosen })),
  select("Right", choices, right, (chosen) => go({ right: chosen })),
  el("button", { type: "submit", class: "main" }, "Compare"));
}

function both(userId, left, right, signal) {
  return Promise.all([left, right].map((model) =>
    post("recommend", { users: [userId], k: COMPARED, model }, signal).then(
      ({ lists }) => ({ results: lists[0].results }),
      (problem) => ({ results: [], problem }),
    )));
}

function sides(lists, names, models) {
  const places = lists.map(({ results }) => new Map(results.map(({ item }, at) => [item.item_id, at])));
  const shared = lists[0].results.filter(({ item }) => places[1].has(item.item_id)).length;
  const all = Math.max(places[0].size, places[1].size);
  const place = el("div", { class: "sides" }, lists.map(({ results, problem }, side) => el("section", { "aria-label": names[side] },
    el("h2", { dir: "auto" }, names[side]), figures(models.find(({ name }) => name === names[side])),
    problem ? failed(problem) : el("ol", { class: "rows small" }, results.map(({ item }, at) => {
      const other = places[1 - side].get(item.item_id);
      const one = row(item, { before: String(at + 1), under: against(other, at) });
      one.dataset.item = item.item_id;
      return one;
    })))));
  for (const event of ["mouseover", "focusin"]) place.addEventListener(event, ({ target }) => light(place, target));
  return [el("p", { class: "total", role: "status" }, `${shared} of ${count(all, "item")} are in both lists`), place];
}

/** Where the other model has an item. */
function against(other, at) {
  if (other === undefined) return el("span", { class: "moved new" }, "only here");
  if (other === at) return el("span", { class: "moved" }, "the same place");
  return el("span", { class: `moved ${other > at ? "up" : "down"}` }, `${other > at ? "▲" : "▼"} ${Math.abs(other - at)}, there at ${other + 1}`);
}

/** Lights the item that is looked at in both lists. */
function light(place, target) {
  const itemId = target.closest("[data-item]")?.dataset.item;
  for (const one of place.querySelectorAll("[data-item]")) one.classList.toggle("lit", one.dataset.item === itemId);
}

function figures(model) {
  const metrics = Object.entries(model?.metrics ?? {}).filter(([, value]) => typeof value === "number");
  return el("p", { class: "under" }, [
    `version ${model.version}`, count(model.items, "item"), count(model.users, "user"),
    ...metrics.map(([name, value]) => `${name} ${short(+value.toFixed(4))}`),
  ].join(" · "));
}
