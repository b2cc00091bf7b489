/** The users that the model knows, found by how their ids begin. */

import { about, get } from "../api.js";
import { userHref } from "../cards.js";
import { count, el, icon, later } from "../dom.js";
import { empty, failed, say } from "../pieces.js";

const AT_ONCE = 100;

export async function render(parameters, signal) {
  const { models } = await about();
  if (!models.length) return ["Users", el("h1", {}, "Users"), noModel()];
  const list = el("ul", { class: "people", "aria-label": "Users" });
  const place = el("div", {}, list);
  const field = el("input", { type: "search", id: "prefix", value: parameters.get("prefix") ?? "", autocomplete: "off" });
  let latest = 0;
  const fill = async (offset = 0) => {
    const mine = ++latest;
    const prefix = field.value.trim();
    const { items, total } = await get("users", { prefix, offset, limit: AT_ONCE }, signal);
    if (mine !== latest) return;
    if (!offset) list.replaceChildren();
    list.append(...items.map(person));
    const last = list.nextElementSibling;
    last?.remove();
    const rest = total === undefined ? items.length === AT_ONCE : offset + items.length < total;
    if (rest) {
      list.after(el("button", { type: "button", class: "more", onclick: () => fill(offset + AT_ONCE) }, "Show more"));
    } else if (prefix && !items.some(({ user_id }) => user_id === prefix)) list.after(stranger(prefix, items.length));
    say(count(list.children.length, "user"));
  };
  field.addEventListener("input", later(200, () => fill().catch((problem) => list.replaceChildren(failed(problem)))));
  await fill();
  return ["Users", el("div", { class: "head" }, el("h1", {}, "Users")),
    el("form", { class: "narrow", onsubmit: (event) => {
      event.preventDefault();
      if (field.value.trim()) location.hash = userHref(field.value.trim());
    } }, el("label", { for: "prefix" }, "An id, or how it begins"), field), place];
}

/** Said where a view needs a model and the service has none. */
export function noModel() {
  return empty("There is no model", "Fit one and serve it beside the store:", el("code", {}, "mmrec serve --store store --model model"));
}

function person({ user_id, num_interactions }) {
  return el("li", {}, el("a", { href: userHref(user_id) }, el("span", { dir: "auto" }, user_id),
    el("span", { class: "under" }, count(num_interactions, "interaction"))));
}

function stranger(prefix, shown) {
  return el("p", { class: "state" }, shown ? "None of them? " : "Nobody is called that. ",
    el("a", { href: userHref(prefix) }, icon("plus"), `Go on as “${prefix}”, somebody new`));
}
