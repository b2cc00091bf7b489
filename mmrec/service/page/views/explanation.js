/** Why an item stands where it does in a user's list: in words first, then the numbers. */

import { itemHref } from "../cards.js";
import { el, signed } from "../dom.js";
import { NOUNS, badge, bars, span } from "../pieces.js";

const MOST_CAUSES = 6;
const MOST_MOMENTS = 8;
const LEAST = 0.005;

/** What `mmrec explain` says, drawn. */
export function explanation(told) {
  return el("div", { class: "explanation" },
    el("p", {}, told.sentences.join(" ")),
    el("div", { class: "pair" },
      el("section", {}, el("h3", {}, "Through what it is"), bars(told.parts.map(({ name, contribution, place_without }) => ({
        name: NOUNS[name] ?? { id: "Its audience", content: "What it is" }[name] ?? name, value: contribution, kind: name,
        note: place_without === told.place ? null : `place ${place_without} without`,
      })), "Parts of the score"),
      el("p", { class: "under" },
        `Popularity adds ${signed(told.popularity)}: it is more popular than ${Math.round(100 * told.more_popular_than)}% of all.`)),
      causes(told), moments(told)));
}

function causes(told) {
  if (!told.history.length) return null;
  const chosen = [...told.history].sort((one, other) => Math.abs(other.contribution) - Math.abs(one.contribution));
  return el("section", {}, el("h3", {}, "Through the history"), bars(chosen.slice(0, MOST_CAUSES).map((cause) => ({
    name: el("a", { href: itemHref(cause.item_id), dir: "auto" }, cause.title || cause.item_id),
    value: cause.contribution,
    note: cause.likeness ? alike(told, cause) : null,
  })), "What each item of the history adds"));
}

/** Where the two are most alike, with links to both moments. */
function alike(told, { item_id, likeness }) {
  const link = (id, seconds, text) => (seconds ? el("a", { href: itemHref(id, seconds[0]) }, span(seconds)) : text);
  return el("span", {}, badge(likeness.modality, `${NOUNS[likeness.modality]} ${likeness.cosine.toFixed(2)}`), " ",
    link(told.item_id, likeness.seconds, "here"), " like ", link(item_id, likeness.their_seconds, "there"));
}

function moments(told) {
  const timed = told.moments.filter(({ seconds, contribution }) => seconds && contribution >= LEAST).slice(0, MOST_MOMENTS);
  if (!timed.length) return null;
  return el("section", {}, el("h3", {}, "Moments that matter most"), el("ul", { class: "chips" }, timed.map((moment) =>
    el("li", {}, el("a", { class: `badge ${moment.modality}`, href: itemHref(told.item_id, moment.seconds[0]) },
      `${NOUNS[moment.modality]} ${span(moment.seconds)} ${signed(moment.contribution)}`)))));
}
