/** The catalog, and what is found in it: by words, by files, by items, at moments, and under filters. */

import { about, get, post, postFile } from "../api.js";
import { addMoment, card, grid, name } from "../cards.js";
import { count, el, icon } from "../dom.js";
import { NOUNS, empty, failed, say, segmented, toggle } from "../pieces.js";
import { filters } from "./filters.js";

const AT_ONCE = 48;
const STATUSES = { "": "All", ok: "OK", partial: "Partial", stale: "Stale", failed: "Failed" };

/** Files that were dropped, for as long as the page is open; an address holds their key. */
const files = new Map();

export function keepFile(file) {
  const key = `${files.size + 1}-${file.name}`;
  files.set(key, file);
  return key;
}

export async function render(parameters, signal) {
  const asked = read(parameters);
  const pages = asked.isSearch ? searched(asked, signal) : browsed(asked, signal);
  const first = pages.next();
  first.catch(() => {}); // it is said where it is awaited
  const { store, columns } = await about();
  const change = (changes) => {
    const next = new URLSearchParams(parameters);
    for (const [key, value] of Object.entries(changes)) {
      next.delete(key);
      for (const one of [value].flat().filter(Boolean)) next.append(key, one);
    }
    location.hash = `#/search${next.size ? `?${next}` : ""}`;
  };
  const title = await heading(asked, signal);
  const total = el("p", { class: "total" });
  const found = el("div", { class: "found" });
  const parts = [
    el("div", { class: "head" }, el("h1", { dir: "auto" }, title), total),
    sought(asked, change),
    el("div", { class: "controls" }, controls(asked, store, change),
      filters(asked.where, columns, (where) => change({ where }), signal)),
    found,
  ].filter(Boolean);
  try {
    show(found, total, asked, store, pages, (await first).value);
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    found.replaceChildren(failed(problem));
  }
  return [asked.isSearch ? title : "", ...parts];
}

/** What an address asks for. */
function read(parameters) {
  const by = parameters.get("by");
  const asked = {
    words: parameters.getAll("q"),
    items: parameters.getAll("item"),
    without: parameters.getAll("without"),
    file: parameters.get("file"),
    where: parameters.get("where") ?? "",
    status: parameters.get("status") ?? "",
    modalities: by ? by.split(",") : null,
    moments: parameters.get("show") === "moments",
  };
  return { ...asked, isSearch: Boolean(asked.words.length || asked.items.length || asked.file) };
}

async function heading({ words, items, file }, signal) {
  const titles = await Promise.all(items.map((item_id) => get("item", { item_id }, signal).then(name, () => item_id)));
  const sought = [...words, ...titles.map((title) => `like “${title}”`), ...(file ? [`like ${fileName(file)}`] : [])];
  return sought.join(" + ") || "Everything in the catalog";
}

function fileName(key) {
  return key.replace(/^\d+-/, "");
}

// --- the two ways to results ----------------------------------------------------------------------------------------

/** Pages of what a search finds, each with the results and whether there may be more. */
async function* searched({ words, without, items, file, where, modalities, moments }, signal) {
  if (file && !files.has(file)) {
    throw Object.assign(new Error(`${fileName(file)} is not at hand any more: drop it again.`), { status: 0 });
  }
  for (let offset = 0; ; offset += AT_ONCE) {
    const query = { words, without, items, where, modalities, k: AT_ONCE, offset, moments };
    const ask = (body) => (file ? postFile("search/file", files.get(file), body, signal) : post("search", body, signal));
    const { results } = await ask(query);
    const isAll = results.length < AT_ONCE;
    yield { results, total: isAll ? offset + results.length : null, isAll, whenMatched: () => ask({ ...query, moments: true }) };
    if (isAll) return;
  }
}

/** The modalities in which it can be found: words lead to those alone whose encoders have words. */
function comparable({ items, file }, store) {
  return store.modalities.filter(({ has_words }) => has_words || items.length || file).map(({ modality }) => modality);
}

function hasMoments(asked, store) {
  const used = asked.modalities ?? ["visual", "audio"];
  return comparable(asked, store).some((modality) => modality !== "text" && used.includes(modality));
}

async function* browsed({ where, status }, signal) {
  for (let offset = 0; ; offset += AT_ONCE) {
    const { items, total } = await get("items", { offset, limit: AT_ONCE, where, status }, signal);
    const isAll = offset + items.length >= total || !items.length;
    yield { results: items.map((item) => ({ item })), total, isAll };
    if (isAll) return;
  }
}

/** Adds a page to the grid. */
function show(found, total, asked, store, pages, page) {
  const list = found.querySelector(".grid") ?? grid([], "Results");
  found.querySelector(".more")?.remove();
  const cards = page.results.map((result) => card(result, asked.words));
  list.append(...cards);
  const shown = list.children.length;
  total.textContent = page.total === null ? `the best ${shown}` : count(page.total, asked.moments ? "moment" : "item");
  say(page.total === null ? `${shown} results` : total.textContent);
  if (!shown) return found.replaceChildren(nothing(asked));
  if (!list.isConnected) found.append(list);
  if (!page.isAll) {
    const button = el("button", { type: "button", class: "more" }, "Show more");
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        show(found, total, asked, store, pages, (await pages.next()).value);
        list.children[shown]?.querySelector("a").focus();
      } catch (problem) {
        button.replaceWith(failed(problem));
      }
    });
    found.append(button);
  }
  if (asked.isSearch && !asked.moments && hasMoments(asked, store)) showMoments(cards, page);
}

/** Where in pictures and sound the items that were found match best, as far as that can be said. */
function showMoments(cards, page) {
  page.whenMatched().then(({ results }) => {
    const moments = new Map(results.map(({ item, moment }) => [item.item_id, moment]));
    for (const [at, result] of page.results.entries()) {
      const moment = moments.get(result.item.item_id);
      if (moment) addMoment(cards[at], result.item, moment);
    }
  }, () => {}); // it stays with the items alone
}

function nothing({ isSearch, where, status }) {
  if (where || status) return empty("Nothing is left", "No item passes the filter. Take a condition away above.");
  if (isSearch) return empty("Nothing was found", "Try other words, or fewer.");
  return empty("The catalog is empty", "Embed a catalog into this store: mmrec embed catalog.csv --store store");
}

// --- what is asked, to be changed -----------------------------------------------------------------------------------

/** The parts of the question, each with a button that takes it away. */
function sought({ words, items, without, file }, change) {
  const without_one = (key, all, one) => () => change({ [key]: all.filter((other) => other !== one) });
  const part = (text, remove, kind = null) => el("li", { class: kind }, el("span", { dir: "auto" }, text),
    el("button", { type: "button", class: "plain", "aria-label": `Without ${text}`, onclick: remove }, icon("close")));
  if (words.length <= 1 && !items.length && !file && !without.length) return null;
  const preview = file && files.has(file) ? picture(files.get(file)) : null;
  return el("ul", { class: "sought", "aria-label": "What is sought" },
    words.map((text) => part(text, without_one("q", words, text))),
    items.map((id) => part(`like ${id}`, without_one("item", items, id))),
    file ? part(fileName(file), () => change({ file: null })) : null,
    without.map((text) => part(`not ${text}`, without_one("without", without, text), "not")),
    preview);
}

/** A dropped picture, small; nothing for other files. */
function picture(file) {
  if (!file.type.startsWith("image/")) return null;
  const canvas = el("canvas", { width: 72, height: 48, role: "img", "aria-label": `The picture ${file.name}` });
  createImageBitmap(file).then((image) => {
    const scale = Math.max(72 / image.width, 48 / image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    canvas.getContext("2d").drawImage(image, (72 - width) / 2, (48 - height) / 2, width, height);
  }, () => canvas.remove());
  return el("li", { class: "picture" }, canvas);
}

function controls(asked, store, change) {
  const { isSearch, status, modalities, moments, without } = asked;
  if (!isSearch) {
    const there = Object.entries(STATUSES).filter(([key]) => !key || store.statuses[key]);
    if (there.length <= 2) return null;
    return segmented("Status", Object.fromEntries(there), status, (chosen) => change({ status: chosen }));
  }
  const able = comparable(asked, store);
  const used = modalities ?? able;
  const chips = store.modalities.map(({ modality }) => {
    const chip = toggle([icon(modality), NOUNS[modality]], used.includes(modality), (isOn) => {
      const next = able.filter((one) => (one === modality ? isOn : used.includes(one)));
      change({ by: next.length === able.length || !next.length ? null : next.join(",") });
    });
    chip.id = `by-${modality}`;
    chip.disabled = !able.includes(modality);
    if (chip.disabled) chip.title = "Words alone do not lead there: search by a file or an item too";
    return chip;
  });
  const unwanted = el("input", { id: "without", type: "text", placeholder: "not like…", "aria-label": "Words for what is not wanted" });
  return [
    moments || hasMoments(asked, store) ? segmented("What is found", { items: "Items", moments: "Moments" },
      moments ? "moments" : "items", (chosen) => change({ show: chosen === "moments" ? chosen : null })) : null,
    el("div", { class: "chips", role: "group", "aria-label": "Compared by" }, chips),
    el("form", { class: "without", onsubmit: (event) => {
      event.preventDefault();
      if (unwanted.value.trim()) change({ without: [...without, unwanted.value.trim()] });
    } }, unwanted),
  ];
}
