/** Results without end, of which only those near the window are in the document. */

import { $, make } from "./dom.js";
import { onLanguage } from "./i18n.js";
import { beside, laid, rowAt, wanted } from "./layout.js";
import * as selection from "./selection.js";
import { marked, place, tile } from "./tile.js";

export const PAGE = 60; // a page of an answer
const [GAP, FOOT] = [10, 28];
const AROUND = 1200; // pixels above and below the window that are kept ready
const GHOSTS = [1.3, 0.8, 1, 1.5, 0.75, 1.3, 1, 0.7, 1.6, 1]; // shapes of what is awaited

let hits = [];
let layout = laid([], { width: 0, gap: GAP, foot: FOOT });
let generation = 0;
let more = false;
let act = {};
let current = 0; // the one tile in the tab order
let width = 0;
const shown = new Map(); // index → element

/** `actions`: open(index), similar(hit). */
export function listen(actions) {
  act = actions;
  new ResizeObserver(resized).observe($("grid"));
  addEventListener("scroll", soon, { passive: true });
  addEventListener("resize", soon);
  $("grid").addEventListener("keydown", keys);
  // Space would press the button on its way up.
  $("grid").addEventListener("keyup", (event) => event.key === " " && isOpener(event) && event.preventDefault());
  $("grid").addEventListener("focusin", (event) => {
    const found = event.target.closest(".tile");
    if (found?.dataset.at) settle(Number(found.dataset.at));
  });
  onLanguage(() => again());
  selection.onChange(() => shown.forEach((element, at) => marked(element, hits[at])));
}

export const all = () => hits;

export function clear() {
  hits = [];
  current = 0;
  shown.clear();
  $("grid").replaceChildren();
  arrange();
}

/** Grey tiles until the answer is there; what is shown already stays, but pale. */
export function waiting() {
  $("grid").setAttribute("aria-busy", "true");
  if (hits.length) return;
  width = $("grid").clientWidth;
  const many = Math.ceil((width * innerHeight) / wanted(width) ** 2);
  const ghosts = Array.from({ length: Math.min(many, 120) }, (_, n) => ({ width: GHOSTS[n % GHOSTS.length], height: 1 }));
  const { boxes } = laid(ghosts, { width, gap: GAP, foot: FOOT });
  $("grid").replaceChildren(...boxes.map((box) => {
    const ghost = make("div", { class: "tile ghost", "aria-hidden": "true" });
    place(ghost, box);
    return ghost;
  }));
  $("grid").style.height = `${innerHeight}px`;
}

/** What was waited for is there, or will not come. */
export const waited = () => $("grid").removeAttribute("aria-busy");

/** Add a page of an answer. */
export function add(answer) {
  generation = answer.index.generation;
  if (!hits.length) $("grid").replaceChildren();
  hits.push(...answer.hits);
  arrange();
  more = answer.more;
  shown.forEach(sized);
  render();
}

/** How long the list is; -1: longer than is known. */
const sized = (element) => element.setAttribute("aria-setsize", more ? -1 : hits.length);

function arrange() {
  width = $("grid").clientWidth;
  layout = laid(hits, { width, gap: GAP, foot: FOOT });
  $("grid").style.height = `${layout.height}px`;
  shown.forEach((element, at) => place(element, layout.boxes[at]));
}

/** Lay out for another width, with the picture at the top of the window still there. */
function resized() {
  if ($("grid").clientWidth === width || !hits.length) return;
  const above = -$("grid").getBoundingClientRect().top;
  const first = above > 0 ? layout.rows[rowAt(layout.rows, above)]?.start : undefined;
  const off = first === undefined ? 0 : layout.boxes[first].y - above;
  arrange();
  if (first !== undefined) scrollBy(0, layout.boxes[first].y - off + $("grid").getBoundingClientRect().top);
  again();
}

/** Draw anew what is shown: for other thumbnails, or in another language. */
function again() {
  const focused = $("grid").contains(document.activeElement);
  shown.forEach((element) => element.remove());
  shown.clear();
  render();
  if (focused) focus(current);
}

let waits = false;

function soon() {
  if (waits) return;
  waits = true;
  requestAnimationFrame(() => {
    waits = false;
    render();
  });
}

/** Those near the window into the document, in their order; the others out of it. */
function render(also = -1) {
  if (!hits.length) return;
  const top = $("grid").getBoundingClientRect().top;
  const { rows } = layout;
  const first = rows[rowAt(rows, -top - AROUND)]?.start ?? hits.length;
  const last = rows[rowAt(rows, innerHeight - top + AROUND)]?.end ?? hits.length;
  const focused = Number(document.activeElement?.closest?.(".tile")?.dataset.at ?? -1);
  const keep = (at) => (at >= first && at < last) || at === focused || at === also || at === current;
  shown.forEach((element, at) => {
    if (keep(at)) return;
    element.remove();
    shown.delete(at);
  });
  const needed = [current, focused, also].filter((at) => at >= 0 && at < hits.length && (at < first || at >= last));
  for (let at = first; at < last; at++) needed.push(at);
  for (const at of [...new Set(needed)].sort((a, b) => a - b)) if (!shown.has(at)) insert(at);
}

function insert(at) {
  const element = tile(hits[at], at, layout.boxes[at], generation, act);
  sized(element);
  if (at === current) element.querySelector(".open").tabIndex = 0;
  shown.set(at, element);
  const next = [...$("grid").children].find((one) => Number(one.dataset.at) > at);
  $("grid").insertBefore(element, next ?? null);
}

/** The one place in the tab order. */
function settle(at) {
  const before = shown.get(current)?.querySelector(".open");
  if (before) before.tabIndex = -1;
  current = at;
  const now = shown.get(current)?.querySelector(".open");
  if (now) now.tabIndex = 0;
}

export function focus(at) {
  if (!hits.length) return;
  const to = Math.min(Math.max(at, 0), hits.length - 1);
  render(to);
  settle(to);
  shown.get(to).querySelector(".open").focus({ preventScroll: true });
  shown.get(to).scrollIntoView({ block: "nearest" });
}

const isOpener = (event) => event.target.classList.contains("open");

function keys(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const to = {
    ArrowRight: () => current + 1,
    ArrowLeft: () => current - 1,
    ArrowDown: () => beside(layout, current, 1),
    ArrowUp: () => beside(layout, current, -1),
    Home: () => 0,
    End: () => hits.length - 1,
  }[event.key]?.();
  if (to !== undefined) {
    if (to >= 0 && to < hits.length) focus(to);
    else if (event.key === "ArrowUp") $("q").focus();
  } else if (event.key === "s") act.similar(hits[current]);
  else if (event.key === "x" || (event.key === " " && isOpener(event))) selection.toggle(hits[current]);
  else return;
  event.preventDefault();
}
