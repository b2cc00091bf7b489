/** What views are made of: states, badges, tabs, bars, choices. */

import { clock, el, icon, present, signed, styled } from "./dom.js";

export const NOUNS = { visual: "Pictures", audio: "Sound", text: "Text", words: "Words", fused: "All together" };

/** Said to those who listen, as "24 items" when results are there. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

export function loading() {
  return el("div", { class: "state waits", role: "status" }, el("span", { class: "spinner" }), "One moment…");
}

export function empty(title, ...more) {
  return el("div", { class: "state" }, el("h2", {}, title), more.map((part) => el("p", {}, part)));
}

/** What went wrong, in the words of the service. */
export function failed(problem) {
  if (problem.status === undefined) console.error(problem);
  const said = problem.status === undefined ? `The page failed: ${problem.message}` : problem.message;
  return el("div", { class: "state wrong", role: "alert" }, el("h2", {}, "That did not work"), el("p", {}, said));
}

/** An element that shows what a promise gives, and how it fails; an answer that nobody waits for is dropped. */
export function waiting(promise, draw) {
  const place = el("div", { class: "place", "aria-busy": "true" }, loading());
  promise.then(draw).then(
    (drawn) => place.replaceChildren(...[drawn].flat()),
    (problem) => problem.name === "AbortError" || place.replaceChildren(failed(problem)),
  ).finally(() => place.removeAttribute("aria-busy"));
  return place;
}

export function badge(kind, text, title = null) {
  return el("span", { class: `badge ${kind}`, title }, kind in NOUNS ? icon(kind) : null, text);
}

export function tags(names) {
  return el("ul", { class: "tags", "aria-label": "Tags" }, names.map((name) => el("li", { dir: "auto" }, name)));
}

/** Choices of which one holds; `change` is told the value. */
export function segmented(label, choices, chosen, change) {
  const name = label.toLowerCase().replaceAll(" ", "-");
  return el("fieldset", { class: "segmented" }, el("legend", { class: "hidden" }, label),
    Object.entries(choices).map(([value, text]) => el("label", {},
      el("input", { type: "radio", id: `${name}-${value}`, name, value, checked: value === chosen, onchange: () => change(value) }),
      el("span", {}, text))));
}

/** A button that is on or off. */
export function toggle(content, isOn, change) {
  const button = el("button", { type: "button", class: "chip", "aria-pressed": String(isOn) }, content);
  button.addEventListener("click", () => change(button.getAttribute("aria-pressed") !== "true"));
  return button;
}

export function select(label, choices, chosen, change) {
  return el("label", { class: "select" }, el("span", {}, label),
    el("select", { id: `select-${label.toLowerCase().replaceAll(" ", "-")}`, onchange: (event) => change(event.target.value) },
      Object.entries(choices).map(([value, text]) => el("option", { value, selected: value === chosen }, text))));
}

/** Tabs by the arrow keys too; a panel is drawn when it is first shown. */
export function tabs(label, panels) {
  const id = `tabs-${Math.random().toString(36).slice(2)}`;
  const buttons = panels.map(([name, title], at) => el("button", {
    type: "button", role: "tab", id: `${id}-${at}`, "aria-controls": `${id}-panel`, onclick: () => open(at),
  }, name in NOUNS ? icon(name) : null, title));
  const panel = el("div", { role: "tabpanel", id: `${id}-panel`, tabindex: "0" });
  const drawn = new Map();
  const list = el("div", { role: "tablist", "aria-label": label, onkeydown: (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = (buttons.indexOf(event.target) + step + buttons.length) % buttons.length;
    open(next);
    buttons[next].focus();
  } }, buttons);

  function open(at) {
    for (const [place, button] of buttons.entries()) {
      button.setAttribute("aria-selected", String(place === at));
      button.tabIndex = place === at ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `${id}-${at}`);
    if (!drawn.has(at)) drawn.set(at, panels[at][2]());
    panel.replaceChildren(drawn.get(at));
  }
  open(0);
  return el("div", { class: "tabs" }, list, panel);
}

/** Parts of a number as bars to the left and to the right of a line, each with its label and its value. */
export function bars(parts, label) {
  const most = Math.max(...parts.map(({ value }) => Math.abs(value)), 1e-9);
  return el("ul", { class: "bars", "aria-label": label }, parts.map(({ name, value, note, kind }) =>
    el("li", { class: kind ?? null }, el("span", { class: "name" }, name),
      styled(el("span", { class: value < 0 ? "bar less" : "bar", "aria-hidden": "true" }),
        { share: `${(50 * Math.abs(value)) / most}%` }),
      el("span", { class: "value" }, signed(value)), note ? el("span", { class: "note" }, note) : null)));
}

/** Names and values, as of the catalog. */
export function facts(pairs) {
  const there = pairs.filter(([, value]) => present(value));
  return there.length ? el("dl", { class: "facts" }, there.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", { dir: "auto" }, Array.isArray(value) ? value.join(", ") : String(value)))))
    : null;
}

/** A stretch of time as in players; empty where there is none. */
export function span(seconds) {
  if (!seconds) return "";
  const [start, end] = seconds.map((one) => clock(one));
  return start === end ? start : `${start}–${end}`;
}
