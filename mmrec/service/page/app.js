/** The frame of the page: which view an address means, Back, the search box, keys, and light or dark. */

import { about } from "./api.js";
import { count, el, icon } from "./dom.js";
import { moveInGrid } from "./cards.js";
import { failed, loading, say } from "./pieces.js";

const VIEWS = {
  search: ["Search", () => import("./views/search.js")],
  item: ["", () => import("./views/item.js")],
  users: ["Users", () => import("./views/users.js")],
  user: ["", () => import("./views/user.js")],
  map: ["Map", () => import("./views/map.js")],
  compare: ["Compare", () => import("./views/compare.js")],
  duplicates: ["Duplicates", () => import("./views/duplicates.js")],
  failures: ["Failures", () => import("./views/failures.js")],
};
const UNDER = { item: "search", user: "users" };
const KEPT_VIEWS = 8;
const THEMES = ["system", "light", "dark"];

const main = document.getElementById("main");
const form = document.querySelector(".find");
const words = document.getElementById("words");
const file = document.getElementById("file");

// --- views ----------------------------------------------------------------------------------------------------------

/** Views that were left, by the key of their place in the history, so that Back is instant and stays where it was. */
const kept = new Map();
let current = null;
let start = null;
let number = Date.now();

/** The view and its parameters: `#/item?id=a` -> ["item", {id: "a"}]. */
function route() {
  const [name, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return [name in VIEWS ? name : "search", new URLSearchParams(query)];
}

async function show() {
  if (location.hash === "#main") return;
  const focused = current?.view.contains(document.activeElement) ? document.activeElement.id : "";
  leave();
  const key = history.state?.key ?? ++number;
  history.replaceState({ key }, "");
  start ??= key;
  const [name, parameters] = route();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === (UNDER[name] ?? name)) {
      link.setAttribute("aria-current", "page");
      link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.clientWidth / 2;
    } else link.removeAttribute("aria-current");
  }
  words.value = name === "search" ? (parameters.get("q") ?? "") : "";
  if (kept.has(key)) return restore(key);
  const stop = new AbortController();
  const view = el("div", { class: `view ${name}` }, loading());
  current = { key, view, stop, isWhole: false, title: "mmrec" };
  main.replaceChildren(view);
  scrollTo(0, 0);
  const here = current;
  try {
    const { render } = await VIEWS[name][1]();
    const [title, ...parts] = await render(parameters, stop.signal);
    here.title = title ? `${title} · mmrec` : "mmrec";
    here.isWhole = true;
    view.replaceChildren(...parts);
  } catch (problem) {
    if (problem.name === "AbortError") return;
    here.title = "mmrec";
    view.replaceChildren(failed(problem));
  }
  if (here === current) arrive(focused);
}

function leave() {
  if (!current) return;
  const { key, view, stop, isWhole } = current;
  for (const media of view.querySelectorAll("video, audio")) media.pause();
  if (!isWhole) return stop.abort();
  kept.set(key, { ...current, top: scrollY, focused: view.contains(document.activeElement) && document.activeElement });
  for (const old of [...kept.keys()].slice(0, -KEPT_VIEWS)) {
    kept.get(old).stop.abort();
    kept.delete(old);
  }
}

function restore(key) {
  current = kept.get(key);
  kept.delete(key);
  main.replaceChildren(current.view);
  document.title = current.title;
  scrollTo(0, current.top);
  if (current.focused) current.focused.focus({ preventScroll: true });
}

/** The focus stays at a choice that changed the view; else those who listen are told where they are, but at the start. */
function arrive(focused) {
  document.title = current.title;
  const again = focused && document.getElementById(focused);
  const heading = current.view.querySelector("h1");
  if (again) again.focus();
  else if (heading && current.key !== start && document.activeElement !== words) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  } else if (heading) say(heading.textContent);
}

// --- the search box, files ------------------------------------------------------------------------------------------

function searchFor(changes) {
  const [name, parameters] = route();
  const next = name === "search" ? parameters : new URLSearchParams();
  for (const [key, value] of Object.entries(changes)) {
    if (value) next.set(key, value);
    else next.delete(key);
  }
  const hash = `#/search${next.size ? `?${next}` : ""}`;
  if (hash === location.hash) return show();
  location.hash = hash;
}

async function searchByFile(chosen) {
  if (!chosen) return;
  const { keepFile } = await import("./views/search.js");
  searchFor({ file: keepFile(chosen) });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  searchFor({ q: words.value.trim() });
  words.blur();
});
words.addEventListener("search", () => {
  if (!words.value && route()[1].has("q")) searchFor({ q: "" });
});
file.addEventListener("change", () => {
  searchByFile(file.files[0]);
  file.value = "";
});
document.getElementById("choose").append(icon("file"));
document.getElementById("choose").addEventListener("click", () => file.click());

const drop = document.getElementById("drop");
addEventListener("dragenter", (event) => {
  if (event.dataTransfer.types.includes("Files")) drop.hidden = false;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.hidden = true;
  searchByFile(event.dataTransfer.files[0]);
});

// --- keys -----------------------------------------------------------------------------------------------------------

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const isTyping = event.target.closest("input:not([type=checkbox], [type=radio]), textarea, select, dialog");
  if (event.key === "Escape" && !event.target.closest("dialog")) {
    if (isTyping) event.target.blur();
    else if (current.key !== start) history.back();
  } else if (event.key === "/" && !isTyping) {
    event.preventDefault();
    words.focus();
    words.select();
  } else if (event.key.startsWith("Arrow")) {
    if (event.target === words && event.key === "ArrowDown") {
      event.preventDefault();
      current?.view.querySelector(".grid a")?.focus();
    } else if (!isTyping && moveInGrid(event.target, event.key)) event.preventDefault();
  }
});

// --- light and dark -------------------------------------------------------------------------------------------------

const theme = document.getElementById("theme");

function wear(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  localStorage.setItem("mmrec-theme", name);
  theme.replaceChildren(icon({ system: "system", light: "sun", dark: "moon" }[name]));
  const says = { system: "as the system has it", light: "light", dark: "dark" }[name];
  theme.setAttribute("aria-label", `Colours: ${says}`);
  theme.title = `Colours: ${says}`;
}

theme.addEventListener("click", () => {
  const worn = document.documentElement.dataset.theme ?? "system";
  wear(THEMES[(THEMES.indexOf(worn) + 1) % THEMES.length]);
});
wear(THEMES.find((name) => name === localStorage.getItem("mmrec-theme")) ?? "system");

// --- the start ------------------------------------------------------------------------------------------------------

document.querySelector("nav").append(
  ...Object.entries(VIEWS)
    .filter(([, [label]]) => label)
    .map(([name, [label]]) => el("a", { href: `#/${name}`, "data-view": name }, label)),
);
history.scrollRestoration = "manual";
addEventListener("hashchange", show);
show();
about().then(
  ({ version, store, models }) => {
    const of_models = models.map((model) => `model ${model.name}, version ${model.version}`);
    document.getElementById("about").textContent = [
      `mmrec ${version}`,
      count(store.items, "item"),
      ...(of_models.length ? of_models : ["no model"]),
    ].join(" · ");
  },
  () => {}, // the view says what is wrong
);
