/** Elements, and how numbers and times are said. Text of the catalog goes through here, as text and never as markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Attributes that are functions are listeners (`onclick`), true is an attribute without a value, null and
 * false are left out; children are elements, texts, and lists of them.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Custom properties of an element, as in `styled(bar, {share: "40%"})`; a style attribute would break the page's policy. */
export function styled(element, properties) {
  for (const [name, value] of Object.entries(properties)) element.style.setProperty(`--${name}`, value);
  return element;
}

const PATHS = {
  file: "M12 16V4m0 0L7 9m5-5 5 5M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3",
  sun: "M12 3v2m0 14v2m9-9h-2M5 12H3m15.4-6.4L17 7M7 17l-1.4 1.4m12.8 0L17 17M7 7 5.6 5.6M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z",
  system: "M12 3a9 9 0 1 0 0 18V3Z M12 3a9 9 0 0 1 0 18",
  clip: "M4 5h16v14H4zM10 9.5v5l4.5-2.5z",
  picture: "M4 5h16v14H4zM4 16l4.5-5 4 4.5 2.5-2.5 5 4.5M15.5 9.5h.01",
  sound: "M5 10v4M9 6v12M13 9v6M17 4v16M21 10v4M1 11v2",
  text: "M5 6h14M5 10h14M5 14h14M5 18h8",
  words: "M5 6h14M5 10h14M5 14h14M5 18h8",
  visual: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12ZM15 12a3 3 0 1 1-6 0 3 3 0 0 1 6 0Z",
  audio: "M5 10v4M9 6v12M13 9v6M17 4v16M21 10v4M1 11v2",
  fused: "M8.5 15.5a5.5 5.5 0 1 1 0-11 5.5 5.5 0 0 1 0 11ZM15.5 19.5a5.5 5.5 0 1 1 0-11 5.5 5.5 0 0 1 0 11Z",
  close: "M6 6l12 12M18 6 6 18",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  filter: "M4 6h16M7 12h10M10 18h4",
  like: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13ZM15.5 15.5 20 20",
  reset: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
};

/** A line drawing of 24 by 24, hidden from those who listen. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  return svg;
}

/** Seconds as in players: 0:12, 1:02:05; with tenths, 0:12.4. */
export function clock(seconds, hasTenths = false) {
  const tenths = Math.max(0, Math.floor(10 * seconds + 1e-6));
  const whole = Math.floor(tenths / 10);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const pad = (number) => String(number).padStart(2, "0");
  const said = hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
  return hasTenths ? `${said}.${tenths % 10}` : said;
}

/** A number in few digits: 12, 0.83, 1.2e-7. */
export function short(number) {
  if (Number.isInteger(number)) return number.toLocaleString("en");
  const size = Math.abs(number);
  return size >= 1e-3 && size < 1e6 ? String(+number.toPrecision(3)) : number.toExponential(1);
}

/** With its sign, as parts of a score are: +0.21, −0.07. */
export function signed(number) {
  return `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(2)}`;
}

/** Seconds since 1970 as a day. */
export function day(timestamp) {
  const date = new Date(timestamp * 1000);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleDateString("en-GB", { dateStyle: "medium" });
}

/** "1 item", "3 items". */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** Whether a value of the catalog is worth showing. */
export function present(value) {
  return value !== null && value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0);
}

/** Runs `act` when nothing has called for some milliseconds. */
export function later(milliseconds, act) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...values), milliseconds);
  };
}
