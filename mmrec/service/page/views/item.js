/** An item: what it shows, what is heard and said when, what is known of it, and what is like it. */

import { about, address, get } from "../api.js";
import { card, grid, name, thumbnail } from "../cards.js";
import { clock, el, icon, present } from "../dom.js";
import { NOUNS, badge, empty, facts, tabs, tags, waiting } from "../pieces.js";
import { player } from "./player.js";

const NEIGHBOURS = 12;
const MOST_FRAMES = 60;
const TIMED_LINE = /^\s*\[?(?:(\d+):)?(\d{1,2}):(\d{2})(?:[.,]\d+)?\]?(?:\s*-->\s*[\d:.,]+)?\s*/;

export async function render(parameters, signal) {
  const itemId = parameters.get("id") ?? "";
  const [item, { store, models }] = await Promise.all([get("item", { item_id: itemId }, signal), about()]);
  const { view, seek } = player(item, Number(parameters.get("t") ?? 0), signal);
  const title = name(item);
  return [
    title,
    el("div", { class: "head" }, el("h1", { dir: "auto", lang: item.language || null }, title), status(item)),
    el("div", { class: "columns" },
      el("div", { class: "wide" }, view, frames(item, seek), transcript(item, seek), timed("On screen", item.seen, seek)),
      el("aside", { "aria-label": "About the item" }, words(item), problems(item), known(item))),
    el("section", { "aria-labelledby": "like" }, el("h2", { id: "like" }, "What is like it"),
      neighbours(item, store, models, signal)),
  ];
}

function status(item) {
  const stale = Object.entries(item.stale_since ?? {}).map(([modality, since]) => `${NOUNS[modality]} as of ${since.slice(0, 10)}`);
  return el("p", { class: "total" }, item.status === "ok" ? null : el("span", { class: `status ${item.status}` }, item.status), stale.join(", "),
    el("a", { class: "button", href: `#/search?${new URLSearchParams({ item: item.item_id })}` }, icon("like"), "Search with this"));
}

function words(item) {
  return el("div", { class: "words" },
    item.description ? el("p", { dir: "auto", lang: item.language || null }, item.description) : null,
    item.about.summary ? el("p", { dir: "auto", class: "summary" }, item.about.summary) : null,
    item.tags.length ? tags(item.tags) : null);
}

/** Frames of the pictures that were embedded, each a button that goes to its time. */
function frames(item, seek) {
  const spans = item.medium === "clip" && item.has_media ? (item.moments.visual ?? []) : [];
  if (!spans.length) return null;
  const step = Math.ceil(spans.length / MOST_FRAMES);
  const shown = spans.filter((_, at) => at % step === 0);
  const isShort = item.duration_seconds < 30;
  return el("section", { "aria-label": "Frames" },
    el("ul", { class: "frames" }, shown.map(([start, end]) => el("li", {},
      el("button", { type: "button", onclick: () => seek(start), "aria-label": `Play from ${clock(start, isShort)}` },
        thumbnail(item, { seconds: (start + end) / 2, width: 160 }), el("span", {}, clock(start, isShort)))))));
}

/** What is said: as the catalog has it, where lines may begin with a time, else as it was heard. */
function transcript(item, seek) {
  const text = item.metadata.transcript ?? "";
  if (!present(text)) return timed("Transcript", item.heard, seek);
  return timed("Transcript", String(text).split(/\r?\n/).filter((line) => line.trim()).map((line) => {
    const found = TIMED_LINE.exec(line);
    return found ? { start: 3600 * Number(found[1] ?? 0) + 60 * Number(found[2]) + Number(found[3]), text: line.slice(found[0].length) }
      : { text: line };
  }), seek);
}

/** Words, each with a button that goes to its time where it has one. */
function timed(heading, passages, seek) {
  if (!passages.length) return null;
  return el("details", { class: "transcript", open: passages.length < 40 }, el("summary", {}, heading), passages.map(({ start, text }) =>
    el("p", { dir: "auto" }, start === undefined ? null
      : el("button", { type: "button", class: "time", onclick: () => seek(start) }, clock(start)), text)));
}

function problems(item) {
  const found = Object.entries(item.problems ?? {});
  if (!found.length) return null;
  return el("ul", { class: "problems", "aria-label": "What is missing" }, found.map(([modality, { reason, detail }]) =>
    el("li", {}, badge(modality, `${NOUNS[modality] ?? modality}: ${reason.replaceAll("_", " ")}`), el("span", {}, detail))));
}

function known(item) {
  const classes = (item.classes ?? []).map(([label, score]) => `${label} ${Math.round(100 * score)}%`);
  const of_tags = Object.entries(item.tag_columns ?? {}).map(([column, value]) => [column, tagged(value)]);
  const own = Object.entries(item.metadata).filter(([column]) => column !== "transcript");
  const technical = Object.entries(item.facts ?? {}).map(([key, value]) => [key.replaceAll("_", " "), value]);
  return [
    facts([["id", item.item_id], ["language", item.language], ["seconds", item.duration_seconds ? item.duration_seconds.toFixed(1) : null], ...own,
      ...of_tags, ["shows", classes]]),
    technical.length ? el("details", { class: "technical" }, el("summary", {}, "The file"), facts(technical)) : null,
  ];
}

/** A value of a column of tags: names, or names with scores. */
function tagged(value) {
  if (!Array.isArray(value)) return value;
  return value.map((one) => (Array.isArray(one) ? `${one[0]} ${Math.round(100 * one[1])}%` : one));
}

function neighbours(item, store, models, signal) {
  const by = [...(models.length ? ["fused"] : []), ...store.modalities.map(({ modality }) => modality)];
  if (!by.length) return empty("Nothing to compare", "The store has no modality.");
  return tabs("Compared by", by.map((one) => [one, NOUNS[one], () => {
    if (one !== "fused" && !(item.moments[one] ?? []).length && item.problems?.[one]) {
      return empty(`It has no ${NOUNS[one].toLowerCase()}`, item.problems[one].detail);
    }
    return waiting(get("similar", { item_id: item.item_id, by: one, k: NEIGHBOURS }, signal), ({ results }) =>
      results.length ? grid(results.map(({ item: other, score }) =>
        card({ item: other, note: badge("score", score.toFixed(2), "How like they are") })), `Like it by ${NOUNS[one]}`)
        : empty("Nothing is like it"));
  }]));
}
