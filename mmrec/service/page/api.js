/** The service, as the page sees it: JSON in and out, its words for what went wrong, its token where it wants one. */

const ROOT = "api/v1";
const KEPT = "mmrec-token";

/** What the service refuses, in its own words. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** GET: `get("item", {item_id})`. Values that are null, undefined or empty are left out of the query. */
export function get(path, query = {}, signal = undefined) {
  return ask(address(path, query), { signal });
}

export function post(path, body, signal = undefined) {
  const headers = { "Content-Type": "application/json" };
  return ask(address(path), { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** A search by a file that need not be in the catalog. */
export function postFile(path, file, query, signal = undefined) {
  const body = new FormData();
  body.append("file", file);
  body.append("query", JSON.stringify(query));
  return ask(address(path), { method: "POST", body, signal });
}

/** The address of what an element loads by itself: media, thumbnails. */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given).toString();
  return `${ROOT}/${path}${text && `?${text}`}`;
}

/** What the store and the models are: asked once, and again when nothing is known yet. */
let known;
export function about() {
  known ??= get("about").catch((problem) => {
    known = undefined;
    throw problem;
  });
  return known;
}

async function ask(url, options) {
  const token = sessionStorage.getItem(KEPT);
  const headers = token ? { ...options.headers, Authorization: `Bearer ${token}` } : options.headers;
  let answer;
  try {
    answer = await fetch(url, { ...options, headers });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Refusal(0, "The service does not answer. Is it still running?");
  }
  if (answer.status === 401) {
    await admitted(token);
    return ask(url, options);
  }
  if (!answer.ok) throw new Refusal(answer.status, await words(answer));
  return answer.json();
}

async function words(answer) {
  const problem = await answer.json().catch(() => ({}));
  const detail = typeof problem.detail === "string" ? problem.detail : problem.title;
  return detail || `The service answered ${answer.status} ${answer.statusText}.`;
}

/** Waits until somebody gave a token that the service takes; `refused` is the one that it did not. */
let asking;
function admitted(refused) {
  asking ??= (async () => {
    let isWrong = Boolean(refused);
    for (;;) {
      const token = await entered(isWrong ? "The service does not know this token. Another?" : "");
      const body = JSON.stringify({ token });
      const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
      const answer = await fetch(address("session"), { method: "POST", headers, body }).catch(() => null);
      if (answer?.ok) {
        sessionStorage.setItem(KEPT, token);
        return;
      }
      isWrong = true;
    }
  })().finally(() => {
    asking = undefined;
  });
  return asking;
}

function entered(problem) {
  const dialog = document.getElementById("token");
  const field = document.getElementById("token-value");
  if (problem) document.getElementById("token-problem").textContent = problem;
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(field.value), { once: true });
  }).then((token) => token || entered(problem));
}
