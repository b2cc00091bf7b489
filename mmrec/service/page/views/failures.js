/** What could not be embedded, whole or in part, with the reasons and the decoder's words. */

import { get } from "../api.js";
import { itemHref, name } from "../cards.js";
import { count, el } from "../dom.js";
import { NOUNS, badge, empty, failed, say } from "../pieces.js";

const AT_ONCE = 50;

export async function render(_, signal) {
  const list = el("ul", { class: "failures", "aria-label": "Items that failed" });
  const place = el("div", {}, list);
  const total = el("p", { class: "total" });
  const fill = async (offset) => {
    const page = await get("failures", { offset, limit: AT_ONCE }, signal);
    list.append(...page.items.map(failure));
    total.textContent = count(page.total, "item");
    say(total.textContent);
    if (list.children.length >= page.total || !page.items.length) return;
    const button = el("button", { type: "button", class: "more" }, "Show more");
    button.addEventListener("click", () => fill(offset + AT_ONCE).then(() => button.remove(), (problem) => button.replaceWith(failed(problem))));
    place.append(button);
  };
  await fill(0);
  if (!list.children.length) place.replaceChildren(empty("Nothing failed", "Every item of the catalog is embedded whole."));
  return ["Failures", el("div", { class: "head" }, el("h1", {}, "What could not be embedded"), total), place];
}

function failure({ item, problems, media }) {
  return el("li", { class: "row" },
    el("span", { class: "said" },
      el("a", { href: itemHref(item.item_id), class: "title", dir: "auto" }, name(item)),
      media ? el("code", { class: "under" }, media) : null),
    el("span", { class: `status ${item.status}` }, item.status),
    el("ul", { class: "problems" }, Object.entries(problems).map(([modality, { reason, detail }]) =>
      el("li", {}, badge(modality, `${NOUNS[modality] ?? modality}: ${reason.replaceAll("_", " ")}`), el("span", { dir: "auto" }, detail)))));
}
