/** A field in which an item is found by its words and chosen: a combobox, as screen readers know it. */

import { post } from "../api.js";
import { name, thumbnail } from "../cards.js";
import { el, later } from "../dom.js";

const OFFERED = 6;

/** Tells `choose` the item. */
export function picker(label, choose, signal) {
  const id = `pick-${Math.random().toString(36).slice(2)}`;
  const list = el("ul", { id: `${id}-list`, role: "listbox", "aria-label": label, hidden: true });
  const field = el("input", { id, type: "text", role: "combobox", "aria-expanded": "false", "aria-autocomplete": "list",
    "aria-controls": `${id}-list`, autocomplete: "off", placeholder: "words of an item" });
  let offered = [];
  let at = -1;

  function point(next) {
    at = next;
    for (const [place, option] of [...list.children].entries()) option.setAttribute("aria-selected", String(place === at));
    if (at < 0) field.removeAttribute("aria-activedescendant");
    else field.setAttribute("aria-activedescendant", `${id}-${at}`);
  }

  function offer(items) {
    offered = items;
    list.replaceChildren(...items.map((item, place) => el("li", { id: `${id}-${place}`, role: "option", "aria-selected": "false",
      onmousedown: (event) => event.preventDefault(), onclick: () => take(item) },
    thumbnail(item, { width: 160 }), el("span", { dir: "auto" }, name(item)))));
    list.hidden = !items.length;
    field.setAttribute("aria-expanded", String(Boolean(items.length)));
    point(-1);
  }

  function take(item) {
    field.value = "";
    offer([]);
    choose(item);
  }

  const look = later(200, async () => {
    const words = field.value.trim();
    const body = { words: [words], k: OFFERED };
    const { results } = words ? await post("search", body, signal).catch(() => ({ results: [] })) : { results: [] };
    if (field.value.trim() === words) offer(results.map(({ item }) => item));
  });
  field.addEventListener("input", look);
  field.addEventListener("blur", () => offer([]));
  field.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && offered.length) {
      event.preventDefault();
      point((at + step + offered.length) % offered.length);
    } else if (event.key === "Enter" && offered.length) {
      event.preventDefault();
      take(offered[Math.max(at, 0)]);
    } else if (event.key === "Escape" && offered.length) {
      event.preventDefault();
      offer([]);
    }
  });
  return el("div", { class: "picker" }, el("label", { for: id }, label), field, list);
}
