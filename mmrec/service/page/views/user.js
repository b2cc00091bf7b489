/** A user: the history, what is recommended and why, and what would be if they had watched something. */

import { about, get, post } from "../api.js";
import { name, row, userHref } from "../cards.js";
import { count, day, el, icon, short } from "../dom.js";
import { empty, failed, say, select, waiting } from "../pieces.js";
import { explanation } from "./explanation.js";
import { picker } from "./picker.js";
import { noModel } from "./users.js";

const RECOMMENDED = 20;
const HISTORY = 100;

export async function render(parameters, signal) {
  const { models } = await about();
  if (!models.length) return ["User", el("h1", {}, "User"), noModel()];
  const userId = parameters.get("id") ?? "";
  const model = parameters.get("model");
  const [user, recommended] = await Promise.all([get("user", { user_id: userId, model }, signal), recommend(userId, model, [], signal)]);
  const list = el("div", { class: "recommended" }, rows(recommended, userId, model, signal));
  return [
    userId,
    el("div", { class: "head" }, el("h1", { dir: "auto" }, userId), el("p", { class: "total" },
      user.known ? count(user.history.length, "interaction") : "not known to the model: what is popular, spread over what there is"),
    choice(models, model, (chosen) => (location.hash = userHref(userId, chosen)))),
    el("div", { class: "columns" },
      el("section", { class: "wide", "aria-labelledby": "next" }, el("h2", { id: "next" }, "Recommended"),
        whatIf(userId, model, recommended, list, signal), list),
      el("aside", { "aria-labelledby": "before" }, el("h2", { id: "before" }, "History"), history(user))),
  ];
}

function choice(models, model, change) {
  if (models.length < 2) return null;
  return select("Model", Object.fromEntries(models.map((one) => [one.name, one.name])), model ?? models[0].name, change);
}

async function recommend(userId, model, watched, signal) {
  const body = { users: [userId], k: RECOMMENDED, model, watched };
  const { lists } = await post("recommend", body, signal);
  return lists[0].results;
}

function rows(results, userId, model, signal, before = null) {
  if (!results.length) return empty("Nothing is recommended", "Everything was seen, or the model ranks no item.");
  const places = before && new Map(before.map(({ item }, at) => [item.item_id, at]));
  const best = results[0].score;
  const worst = results.at(-1).score;
  return el("ol", { class: "rows", "aria-label": "Recommended" }, results.map(({ item, score }, at) => {
    const why = el("button", { type: "button", class: "why", "aria-expanded": "false" }, "Why?");
    const place = row(item, {
      before: String(at + 1),
      under: [meter((score - worst) / (best - worst || 1)), el("span", { class: "number" }, short(+score.toFixed(3))),
        places && moved(places.get(item.item_id), at)],
      after: why,
    });
    let shown = null;
    why.addEventListener("click", () => {
      const isOpen = why.getAttribute("aria-expanded") === "true";
      why.setAttribute("aria-expanded", String(!isOpen));
      shown ??= waiting(get("explain", { user_id: userId, item_id: item.item_id, model }, signal), explanation);
      if (isOpen) shown.remove();
      else place.append(shown);
    });
    return place;
  }));
}

function meter(share) {
  return el("meter", { min: 0, max: 1, value: Math.max(0.02, share), "aria-hidden": "true" });
}

/** How a place changed: up, down, new. */
export function moved(before, after) {
  if (before === undefined) return el("span", { class: "moved new" }, "new");
  const change = before - after;
  if (!change) return el("span", { class: "moved" }, "as before");
  return el("span", { class: `moved ${change > 0 ? "up" : "down"}` }, `${change > 0 ? "▲" : "▼"} ${Math.abs(change)}`);
}

function whatIf(userId, model, before, list, signal) {
  const watched = [];
  const chips = el("ul", { class: "sought", "aria-label": "Watched, if" });
  const again = async () => {
    chips.replaceChildren(...watched.map((item) => el("li", {}, el("span", { dir: "auto" }, name(item)),
      el("button", { type: "button", class: "plain", "aria-label": `Without ${name(item)}`, onclick: () => {
        watched.splice(watched.indexOf(item), 1);
        again();
      } }, icon("close")))));
    list.setAttribute("aria-busy", "true");
    try {
      const results = watched.length ? await recommend(userId, model, watched.map((item) => item.item_id), signal) : before;
      list.replaceChildren(rows(results, userId, model, signal, watched.length ? before : null));
      say(watched.length ? `Recommended if ${count(watched.length, "more item")} were watched` : "As it is");
    } catch (problem) {
      list.replaceChildren(failed(problem));
    }
    list.removeAttribute("aria-busy");
  };
  return el("div", { class: "whatif" }, picker("What if they watched…", (item) => {
    if (!watched.some(({ item_id }) => item_id === item.item_id)) watched.push(item);
    again();
  }, signal), chips);
}

function history(user) {
  if (!user.history.length) return empty("No history", "Nothing is known of what they watched.");
  const shown = user.history.slice(0, HISTORY);
  return [
    el("ol", { class: "rows small", "aria-label": "History, newest first" }, shown.map(({ item, timestamp, weight }) =>
      row(item, { under: [timestamp ? el("time", {}, day(timestamp)) : null, weighed(weight)] }))),
    user.history.length > HISTORY ? el("p", { class: "under" }, `and ${count(user.history.length - HISTORY, "earlier one")}`) : null,
  ];
}

function weighed(weight) {
  if (weight === null || weight === undefined || weight === 1) return null;
  if (weight > 0) return el("span", { class: "number" }, `weight ${short(weight)}`);
  return el("span", { class: "moved down" }, weight < 0 ? "disliked" : "not liked");
}
