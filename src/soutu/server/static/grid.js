/** The grid of results: it scrolls on, and only cards near the window are in the document. */

import { $, h } from "./dom.js";
import { onLanguage } from "./i18n.js";
import { adjacent, layOut, rowAt, rowHeight } from "./layout.js";
import * as selection from "./selection.js";
import { card, markSelected, position } from "./card.js";

export const PAGE_SIZE = 60; // hits
const [GAP, FOOT] = [10, 28];
const MARGIN = 1200; // pixels above and below the window that are rendered
const SKELETON_RATIOS = [1.3, 0.8, 1, 1.5, 0.75, 1.3, 1, 0.7, 1.6, 1]; // of results that are awaited

let hits = [];
let layout = layOut([], { width: 0, gap: GAP, foot: FOOT });
let generation = 0;
let more = false;
let actions = {};
let current = 0; // the one card in the tab order
let width = 0;
const cards = new Map(); // index → element

export function listen(handlers) {
  actions = handlers;
  new ResizeObserver(onResize).observe($("grid"));
  addEventListener("scroll", scheduleRender, { passive: true });
  addEventListener("resize", scheduleRender);
  $("grid").addEventListener("keydown", onKeyDown);
  // Space would press the button on its way up.
  $("grid").addEventListener("keyup", (event) => event.key === " " && isOpener(event) && event.preventDefault());
  $("grid").addEventListener("focusin", (event) => {
    const element = event.target.closest(".card");
    if (element?.dataset.index) setCurrent(Number(element.dataset.index));
  });
  onLanguage(() => redraw());
  selection.onChange(() => cards.forEach((element, index) => markSelected(element, hits[index])));
}

export const all = () => hits;

export function clear() {
  hits = [];
  current = 0;
  for (const index of [...cards.keys()]) discard(index);
  $("grid").replaceChildren();
  updateLayout();
}

/** Show skeletons until the answer is there; results stay, but pale. */
export function showLoading() {
  $("grid").setAttribute("aria-busy", "true");
  if (hits.length) return;
  width = $("grid").clientWidth;
  const count = Math.ceil((width * innerHeight) / rowHeight(width) ** 2);
  const skeletons = Array.from({ length: Math.min(count, 120) }, (_, n) => ({ width: SKELETON_RATIOS[n % SKELETON_RATIOS.length], height: 1 }));
  const { boxes } = layOut(skeletons, { width, gap: GAP, foot: FOOT });
  $("grid").replaceChildren(...boxes.map((box) => {
    const skeleton = h("div", { class: "card skeleton", "aria-hidden": "true" });
    position(skeleton, box);
    return skeleton;
  }));
  $("grid").style.height = `${innerHeight}px`;
}

export const endLoading = () => $("grid").removeAttribute("aria-busy");

export function add(answer) {
  generation = answer.index.generation;
  if (!hits.length) $("grid").replaceChildren();
  hits.push(...answer.hits);
  updateLayout();
  more = answer.more;
  cards.forEach(setSize);
  render();
}

const setSize = (element) => element.setAttribute("aria-setsize", more ? -1 : hits.length);

function updateLayout() {
  width = $("grid").clientWidth;
  layout = layOut(hits, { width, gap: GAP, foot: FOOT });
  $("grid").style.height = `${layout.height}px`;
  cards.forEach((element, index) => position(element, layout.boxes[index]));
}

/** Lay out for another width, with the picture at the top of the window still there. */
function onResize() {
  if ($("grid").clientWidth === width || !hits.length) return;
  const above = -$("grid").getBoundingClientRect().top;
  const first = above > 0 ? layout.rows[rowAt(layout.rows, above)]?.start : undefined;
  const off = first === undefined ? 0 : layout.boxes[first].y - above;
  updateLayout();
  if (first !== undefined) scrollBy(0, layout.boxes[first].y - off + $("grid").getBoundingClientRect().top);
  redraw();
}

/** Render all cards again: for other thumbnails, or in another language. */
function redraw() {
  const focused = $("grid").contains(document.activeElement);
  for (const index of [...cards.keys()]) discard(index);
  render();
  if (focused) focus(current);
}

let scheduled = false;

function scheduleRender() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    render();
  });
}

/** Keep the cards near the window in the document, in order. */
function render(extra = -1) {
  if (!hits.length) return;
  const top = $("grid").getBoundingClientRect().top;
  const { rows } = layout;
  const first = rows[rowAt(rows, -top - MARGIN)]?.start ?? hits.length;
  const last = rows[rowAt(rows, innerHeight - top + MARGIN)]?.end ?? hits.length;
  const focused = Number(document.activeElement?.closest?.(".card")?.dataset.index ?? -1);
  const keep = (index) => (index >= first && index < last) || [focused, extra, current].includes(index);
  cards.forEach((element, index) => keep(index) || discard(index));
  const needed = [current, focused, extra].filter((index) => index >= 0 && index < hits.length);
  for (let index = first; index < last; index++) needed.push(index);
  for (const index of [...new Set(needed)].sort((a, b) => a - b)) if (!cards.has(index)) insert(index);
}

/** Remove a card; its picture stops loading, or a fling would load all that it passes. */
function discard(index) {
  const element = cards.get(index);
  element.querySelector("img").removeAttribute("src");
  element.remove();
  cards.delete(index);
}

function insert(index) {
  const element = card(hits[index], index, layout.boxes[index], generation, actions);
  setSize(element);
  if (index === current) element.querySelector(".open").tabIndex = 0;
  cards.set(index, element);
  const next = [...$("grid").children].find((other) => Number(other.dataset.index) > index);
  $("grid").insertBefore(element, next ?? null);
}

/** Make a card the one in the tab order. */
function setCurrent(index) {
  const before = cards.get(current)?.querySelector(".open");
  if (before) before.tabIndex = -1;
  current = index;
  const now = cards.get(current)?.querySelector(".open");
  if (now) now.tabIndex = 0;
}

export function focus(index) {
  if (!hits.length) return;
  const to = Math.min(Math.max(index, 0), hits.length - 1);
  render(to);
  setCurrent(to);
  cards.get(to).querySelector(".open").focus({ preventScroll: true });
  cards.get(to).scrollIntoView({ block: "nearest" });
}

const isOpener = (event) => event.target.classList.contains("open");

function onKeyDown(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const to = {
    ArrowRight: () => current + 1,
    ArrowLeft: () => current - 1,
    ArrowDown: () => adjacent(layout, current, 1),
    ArrowUp: () => adjacent(layout, current, -1),
    Home: () => 0,
    End: () => hits.length - 1,
  }[event.key]?.();
  if (to !== undefined) {
    if (to >= 0 && to < hits.length) focus(to);
    else if (event.key === "ArrowUp") $("q").focus();
  } else if (event.key === "s") actions.similar(hits[current]);
  else if (event.key === "x" || (event.key === " " && isOpener(event))) selection.toggle(hits[current]);
  else return;
  event.preventDefault();
}
