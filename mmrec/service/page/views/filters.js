/** Filters by the columns of the catalog: chosen, or written in the language of `--where`. */

import { get } from "../api.js";
import { el, icon } from "../dom.js";

const OPERATORS = {
  text: { "=": "is", "!=": "is not" },
  list: { "=": "has", "!=": "has not" },
  number: { "=": "is", "!=": "is not", ">=": "at least", "<=": "at most" },
};
const SUGGESTED_FROM = 200;

/** The conditions that hold, and a form for another; `change` is told the whole filter. */
export function filters(where, columns, change, signal) {
  const holding = conditions(where);
  const chips = holding.map((condition, at) => el("li", {}, el("code", { dir: "auto" }, condition),
    el("button", { type: "button", class: "plain", "aria-label": `Without the filter ${condition}`,
      onclick: () => change(holding.filter((_, other) => other !== at).join(" and ")) }, icon("close"))));
  const details = el("details", { class: "filters", open: Boolean(where) },
    el("summary", { id: "filters" }, icon("filter"), "Filter"),
    chips.length ? el("ul", { class: "sought", "aria-label": "Filters" }, chips) : null,
    columns.length ? another(holding, columns, change, signal) : null,
    written(where, change));
  return details;
}

function another(holding, columns, change, signal) {
  const kinds = Object.fromEntries(columns.map(({ name, kind }) => [name, kind]));
  const first = columns.find(({ name }) => name === "language") ?? columns[0];
  const column = el("select", { "aria-label": "Column" },
    columns.map(({ name }) => el("option", { value: name, selected: name === first.name }, name)));
  const operator = el("select", { "aria-label": "Comparison" });
  const value = el("input", { "aria-label": "Value", list: "values", placeholder: "value", required: true });
  const values = el("datalist", { id: "values" });
  const fill = () => {
    const kind = kinds[column.value] ?? "text";
    operator.replaceChildren(...Object.entries(OPERATORS[kind]).map(([sign, text]) => el("option", { value: sign }, text)));
    value.inputMode = kind === "number" ? "decimal" : "text";
    value.value = "";
    suggest(values, column.value, signal);
  };
  column.addEventListener("change", fill);
  value.addEventListener("focus", () => suggest(values, column.value, signal), { once: true });
  operator.replaceChildren(...Object.entries(OPERATORS[first.kind]).map(([sign, text]) => el("option", { value: sign }, text)));
  return el("form", { class: "another", onsubmit: (event) => {
    event.preventDefault();
    change([...holding, condition(column.value, operator.value, value.value.trim(), kinds[column.value])].join(" and "));
  } }, column, operator, value, values, el("button", { type: "submit" }, "Add"));
}

/** Values of a column that the first items of the catalog have. */
let first;
async function suggest(list, column, signal) {
  first ??= get("items", { limit: SUGGESTED_FROM }, signal).catch(() => (first = undefined));
  const { items } = (await first) ?? { items: [] };
  const seen = new Set(items.flatMap((item) => item[column] ?? item.metadata[column] ?? []).map(String));
  list.replaceChildren(...[...seen].sort().slice(0, 50).map((value) => el("option", { value })));
}

function written(where, change) {
  const field = el("input", { id: "where", value: where, placeholder: "year >= 2001 and language = 'zh'", spellcheck: "false" });
  return el("form", { class: "written", onsubmit: (event) => {
    event.preventDefault();
    change(field.value.trim());
  } }, el("label", { for: "where" }, "or written"), field);
}

/** One condition in the language of filters. */
export function condition(column, operator, value, kind) {
  const isPlain = /^[\p{L}][\p{L}\p{N}_.-]*$/u.test(column) && !/^(and|or|not|in)$/i.test(column);
  const said = kind === "number" && value !== "" && !Number.isNaN(Number(value)) ? value : `'${value.replaceAll("'", "''")}'`;
  return `${isPlain ? column : `"${column}"`} ${operator} ${said}`;
}

/** The conditions of a filter that are joined by `and` at the top; the whole filter where it has an `or` there. */
export function conditions(where) {
  const parts = [""];
  let depth = 0;
  for (const piece of where.match(/'(?:[^']|'')*'|"[^"]*"|[()]|[^\s'"()]+|\s+/g) ?? []) {
    if (piece === "(") depth += 1;
    if (piece === ")") depth -= 1;
    if (depth === 0 && /^or$/i.test(piece)) return [where];
    if (depth === 0 && /^and$/i.test(piece)) parts.push("");
    else parts[parts.length - 1] += piece;
  }
  return parts.map((part) => part.trim()).filter(Boolean);
}
