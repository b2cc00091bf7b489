/** Items as cards in a grid and as rows of a list, and the arrow keys in both. */

import { address } from "./api.js";
import { clock, el, icon, styled } from "./dom.js";
import { badge, span } from "./pieces.js";
import { whenSeen } from "./thumbnails.js";

const CARD_WIDTH = 320;

export function itemHref(itemId, seconds = null) {
  const query = new URLSearchParams({ id: itemId });
  if (seconds !== null) query.set("t", String(+seconds.toFixed(2)));
  return `#/item?${query}`;
}

export function userHref(userId, model = "") {
  const query = new URLSearchParams({ id: userId });
  if (model) query.set("model", model);
  return `#/user?${query}`;
}

/** What an item looks like; where it shows nothing, a plain field in a colour of its own. */
export function thumbnail(item, { seconds = null, width = CARD_WIDTH, alt = "" } = {}) {
  const frame = styled(el("span", { class: `thumb ${item.medium}` }), { hue: String(hue(item.item_id)) });
  if (item.has_media && (item.medium === "clip" || item.medium === "picture")) {
    const image = el("img", { alt, decoding: "async" });
    image.addEventListener("error", () => image.replaceWith(icon(item.medium)), { once: true });
    frame.append(whenSeen(image, address("thumbnail", { item_id: item.item_id, seconds, width })));
  } else frame.append(icon(item.medium));
  return frame;
}

/** A card of an item: a link to it, and, where it was found at a moment, to that moment. */
export function card({ item, moment = null, note = null }, query = []) {
  const start = moment?.start ?? null;
  const sought = pattern(query);
  const isSaid = sought !== null && isInWords(item, sought);
  const matched = [
    moment && ofMoment(moment),
    isSaid ? badge("words", "in its words") : null,
    note,
  ].filter(Boolean);
  return el("li", {}, el("a", { class: "card", href: itemHref(item.item_id, start) },
    el("span", { class: "top" }, thumbnail(item, { seconds: start }),
      item.duration_seconds ? el("span", { class: "long" }, clock(item.duration_seconds)) : null,
      item.status === "ok" ? null : el("span", { class: `status ${item.status}` }, item.status)),
    el("span", { class: "title", dir: "auto" }, isSaid ? marked(name(item), sought) : name(item)),
    el("span", { class: "under" }, matched.length ? matched : about(item))));
}

/** Says on a card that is there where the item matches best, and leads there. */
export function addMoment(shown, item, moment) {
  const link = shown.querySelector(".card");
  link.href = itemHref(item.item_id, moment.start);
  link.querySelector(".under").prepend(ofMoment(moment));
}

function ofMoment({ modality, start, end }) {
  return badge(modality, span([start, end]), "The moment that matches best");
}

export function grid(cards, label) {
  return el("ul", { class: "grid", "aria-label": label }, cards);
}

/** A row of a list: a number or date in front, the item, and what stands behind it. */
export function row(item, { before = null, under = null, after = null } = {}) {
  return el("li", { class: "row" },
    before === null ? null : el("span", { class: "before" }, before),
    el("a", { href: itemHref(item.item_id) }, thumbnail(item, { width: 160 }),
      el("span", { class: "said" }, el("span", { class: "title", dir: "auto" }, name(item)),
        el("span", { class: "under" }, under ?? about(item)))),
    after);
}

/** How an item is called; one without a title by its id. */
export function name(item) {
  return item.title || item.item_id;
}

function about(item) {
  const said = item.tags.length ? item.tags.slice(0, 3) : [item.medium];
  return said.map((text) => el("span", { dir: "auto" }, text));
}

function hue(text) {
  let sum = 0;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)) % 360;
  return sum;
}

/** A pattern of the words that were sought, those of two letters left out; in scripts without spaces, anywhere. */
function pattern(query) {
  const words = query.join(" ").split(/[^\p{L}\p{N}]+/u).filter((word) => word.length > 2 || /[^\u0000-\u024f]/.test(word));
  return words.length ? { num: words.length, found: new RegExp(`(?<![a-z\\d])(${words.join("|")})`, "giu") } : null;
}

/** Whether the title and tags of an item have half of the words that were sought. */
function isInWords(item, sought) {
  const found = [item.title, ...item.tags].join(" ").matchAll(sought.found);
  return new Set([...found].map(([word]) => word.toLowerCase())).size >= sought.num / 2;
}

/** A title in which the words that were sought are marked. */
function marked(title, sought) {
  return title.split(sought.found).map((part, at) => (at % 2 ? el("mark", {}, part) : part));
}

/** Moves the focus among the links of a grid or list as the arrows say; whether there was anywhere to go. */
export function moveInGrid(from, key) {
  const list = from.closest(".grid, .rows");
  if (!list) return false;
  const links = [...list.querySelectorAll(".card, .row > a")];
  const at = links.indexOf(from.closest(".card, .row > a"));
  if (at < 0) return false;
  const tops = links.map((link) => link.getBoundingClientRect().top);
  const columns = Math.max(1, tops.filter((top) => Math.abs(top - tops[0]) < 4).length);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  const next = links[at + step];
  if (!next && key === "ArrowUp") document.getElementById("words").focus();
  else next?.focus();
  return true;
}
