/** The player of an item: its file, and below it the sound as a wave and the moments that were embedded, to go to. */

import { address, get } from "../api.js";
import { clock, el, icon, styled } from "../dom.js";
import { NOUNS } from "../pieces.js";
import { name } from "../cards.js";

const POINTS = 400;
const MOST_MARKS = 400;

/** Shows an item from `start` seconds on; `seek` plays from a time. */
export function player(item, start, signal) {
  if (!item.has_media || item.medium === "text") {
    return { view: el("div", { class: "player none" }, icon("text"), el("p", {}, "There is no file: it is known by its words.")), seek() {} };
  }
  if (item.medium === "picture") {
    const image = el("img", { src: address("media", { item_id: item.item_id }), alt: `The picture of ${name(item)}` });
    return { view: el("div", { class: "player picture" }, image), seek() {} };
  }
  const isSound = item.medium === "sound";
  const media = el(isSound ? "audio" : "video", {
    src: address("media", { item_id: item.item_id }) + (start ? `#t=${start}` : ""), controls: true, preload: "metadata",
    playsinline: true, "aria-label": `Player of ${name(item)}`,
    poster: isSound ? null : address("thumbnail", { item_id: item.item_id, seconds: start || null, width: 960 }),
  });
  const problem = el("p", { class: "cannot", role: "alert", hidden: true });
  media.addEventListener("error", () => {
    problem.replaceChildren("This browser cannot play the file. ",
      el("a", { href: address("media", { item_id: item.item_id }), download: "" }, "Keep a copy"), " to play it elsewhere.");
    problem.hidden = false;
  });
  const seek = (seconds) => {
    media.currentTime = seconds;
    media.play().catch(() => {}); // it may not play by itself: it stands at the moment, ready
    media.scrollIntoView({ block: "nearest" });
  };
  const seconds = item.duration_seconds ?? 0;
  return {
    view: el("div", { class: `player ${item.medium}` }, media, problem, seconds ? timeline(item, media, seconds, seek, signal) : null),
    seek,
  };
}

/** The wave with a slider upon it, and a lane of moments for each modality that has times. */
function timeline(item, media, seconds, seek, signal) {
  const canvas = el("canvas", { class: "wave", width: 2 * POINTS, height: 96, "aria-hidden": "true" });
  const slider = el("input", { type: "range", min: 0, max: seconds, step: "any", value: 0, "aria-label": "Position",
    "aria-valuetext": clock(0) });
  slider.addEventListener("input", () => (media.currentTime = Number(slider.value)));
  const place = el("div", { class: "timeline" }, el("div", { class: "sound" }, canvas, slider), lanes(item, seconds, seek));
  const moved = () => {
    slider.value = media.currentTime;
    slider.setAttribute("aria-valuetext", clock(media.currentTime));
    styled(place, { at: `${(100 * media.currentTime) / seconds}%` });
  };
  for (const event of ["timeupdate", "seeking", "loadedmetadata"]) media.addEventListener(event, moved);
  if (item.facts?.audio_codec || (item.moments.audio ?? []).length) {
    get("waveform", { item_id: item.item_id, points: POINTS }, signal).then(
      ({ peaks }) => draw(canvas, peaks),
      () => canvas.classList.add("silent"),
    );
  } else canvas.classList.add("silent");
  return place;
}

function lanes(item, seconds, seek) {
  return ["visual", "audio"].map((modality) => {
    const spans = (item.moments[modality] ?? []).filter(([, end]) => end > 0);
    if (!spans.length) return null;
    const step = Math.ceil(spans.length / MOST_MARKS);
    return el("div", { class: `lane ${modality}`, role: "group", "aria-label": `Moments: ${NOUNS[modality]}` },
      spans.filter((_, at) => at % step === 0).map(([start, end]) => styled(
        el("button", { type: "button", tabindex: "-1", "aria-label": `${NOUNS[modality]} at ${clock(start)}`,
          title: `${clock(start)}–${clock(end)}`, onclick: () => seek(start) }),
        { from: `${(100 * start) / seconds}%`, share: `${(100 * Math.max(end - start, seconds / 200)) / seconds}%` })));
  });
}

/** The peaks as bars around the middle, in the colour of the text. */
function draw(canvas, peaks) {
  const context = canvas.getContext("2d");
  const width = canvas.width / peaks.length;
  const most = Math.max(...peaks, 1e-6);
  context.fillStyle = getComputedStyle(canvas).color;
  for (const [at, peak] of peaks.entries()) {
    const height = Math.max(2, (canvas.height * peak) / most);
    context.fillRect(at * width, (canvas.height - height) / 2, Math.max(1, width - 1), height);
  }
}
