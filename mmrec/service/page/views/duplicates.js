/** The same content again: each group is an item and its copies, edits, and parts. */

import { get } from "../api.js";
import { itemHref, name, row, thumbnail } from "../cards.js";
import { clock, count, el } from "../dom.js";
import { empty, waiting } from "../pieces.js";

const AT_ONCE = 30;

export function render(_, signal) {
  const total = el("p", { class: "total" });
  return ["Duplicates",
    el("div", { class: "head" }, el("h1", {}, "The same content again"), total),
    waiting(get("duplicates", {}, signal), ({ groups }) => {
      total.textContent = count(groups.length, "group");
      if (!groups.length) return empty("No item is there twice", "Nothing in the catalog is a copy, an edit or a part of another.");
      const list = el("div", { class: "groups" });
      more(list, groups, 0);
      return list;
    })];
}

function more(list, groups, from) {
  list.append(...groups.slice(from, from + AT_ONCE).map(group));
  if (from + AT_ONCE >= groups.length) return;
  const button = el("button", { type: "button", class: "more", onclick: () => {
    button.remove();
    more(list, groups, from + AT_ONCE);
  } }, "Show more");
  list.append(button);
}

function group({ item, duplicates }) {
  return el("section", { class: "group" },
    el("a", { class: "of", href: itemHref(item.item_id) }, thumbnail(item),
      el("h2", { class: "title", dir: "auto" }, name(item)), el("span", { class: "under" }, count(duplicates.length, "duplicate"))),
    el("ul", { class: "rows small" }, duplicates.map((pair) => row(pair.item, { under: el("span", {}, told(pair)) }))));
}

/** In words, what the pair has in common and what not. */
function told({ score, same_file, offset_seconds, speed, differs }) {
  if (same_file) return "the same file";
  const parts = [`${Math.round(100 * score)}% alike`];
  if (Math.abs(offset_seconds) >= 0.5) {
    const far = Math.abs(offset_seconds) < 60 ? `${Math.abs(offset_seconds).toFixed(1)} s` : clock(Math.abs(offset_seconds));
    parts.push(offset_seconds > 0 ? `begins at ${far}` : `begins ${far} before`);
  }
  if (Math.abs(speed - 1) > 0.01) parts.push(`at ${speed.toFixed(2)}× the speed`);
  for (const [what, [first, second]] of Object.entries(differs ?? {})) parts.push(`${what.replaceAll("_", " ")}: ${first} and ${second}`);
  return parts.join(" · ");
}
