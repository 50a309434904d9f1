/** Results without end: pages of tiles, of which only those near the window are in the document. */

import { thumbnail } from "./api.js";
import { $, LIKE, TICK, icon, make, plain } from "./dom.js";
import { label, onLanguage, percent, t } from "./i18n.js";
import * as selection from "./selection.js";

export const PAGE = 60; // which most numbers of columns divide
const COLUMNS = [2, 3, 4, 5, 6, 10, 12, 15];
const NARROW = 480;
const [LEAST, LEAST_NARROW] = [172, 150]; // pixels of a tile
const FOOT = 52; // below the picture

let pages = []; // { element, hits, shown }
let hits = [];
let generation = 0;
let act = {};
let columns = 2;
let current = 0;

/** `actions`: open(index), similar(hit). */
export function listen(actions) {
  act = actions;
  new ResizeObserver(fit).observe($("grid"));
  $("grid").addEventListener("keydown", keys);
  $("grid").addEventListener("focusin", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) current = Number(tile.dataset.at);
  });
  onLanguage(() => pages.forEach((page) => page.shown && (hide(page), render(page))));
  selection.onChange(() => {
    for (const tile of $("grid").querySelectorAll(".tile")) marked(tile, hits[tile.dataset.at]);
  });
}

const near = new IntersectionObserver(
  (seen) => {
    for (const { target, isIntersecting } of seen) {
      const page = pages[target.dataset.page];
      if (page?.element !== target) continue;
      if (isIntersecting && !page.shown) render(page);
      else if (!isIntersecting && page.shown && !target.contains(document.activeElement)) hide(page);
    }
  },
  { rootMargin: "1500px 0px" },
);

export const all = () => hits;

export function clear() {
  near.disconnect();
  pages = [];
  hits = [];
  current = 0;
  $("grid").replaceChildren();
}

/** Grey tiles until the answer is there. */
export function waiting() {
  clear();
  fit();
  const tiles = Array.from({ length: Math.min(PAGE, columns * 4) }, () => make("div", { class: "tile ghost" }));
  $("grid").append(make("div", { class: "page", "aria-hidden": "true" }, ...tiles));
}

/** Add a page of an answer. */
export function add(answer) {
  generation = answer.index.generation;
  const element = make("div", { class: "page", role: "presentation" });
  element.dataset.page = pages.length;
  const page = { element, hits: answer.hits, start: hits.length, shown: false };
  pages.push(page);
  hits.push(...answer.hits);
  $("grid").append(element);
  room(page);
  render(page);
  near.observe(element);
}

function fit() {
  const width = $("grid").clientWidth;
  const least = width < NARROW ? LEAST_NARROW : LEAST;
  columns = COLUMNS.findLast((n) => width / n >= least) ?? 2;
  $("grid").style.setProperty("--columns", columns);
  pages.forEach(room);
}

/** An empty page is as high as a full one, so that nothing jumps. */
function room(page) {
  const gap = 8;
  const side = ($("grid").clientWidth - gap * (columns - 1)) / columns;
  page.element.style.minHeight = `${Math.ceil(page.hits.length / columns) * (side + FOOT + gap)}px`;
}

function render(page) {
  page.shown = true;
  page.element.replaceChildren(...page.hits.map((hit, n) => tile(hit, page.start + n)));
}

function hide(page) {
  page.shown = false;
  page.element.replaceChildren();
}

function tile(hit, at) {
  const words = hit.caption || hit.path;
  const side = $("grid").clientWidth / columns;
  const size = side * devicePixelRatio > 340 ? 512 : 256;
  const picture = make("img", { alt: "", loading: "lazy", decoding: "async", draggable: false,
    onerror: () => element.classList.add("gone") });
  const open = make("button", { type: "button", class: "open", tabIndex: at === current ? 0 : -1,
    "aria-label": `${hit.rank}. ${plain(words)}`, onclick: () => act.open(at) }, picture,
    make("span", { class: "lost" }, t("noImage")));
  const mark = make("button", { type: "button", class: "mark", tabIndex: -1, onclick: () => selection.toggle(hit) }, icon(TICK));
  const like = make("button", { type: "button", class: "more", tabIndex: -1, onclick: () => act.similar(hit) }, icon(LIKE));
  label(like, t("similar"));
  const sure = hit.confidence === null ? hit.score.toFixed(3) : percent(hit.confidence);
  const element = make("div", { class: "tile", role: "listitem" }, open, mark, like,
    make("p", { class: "words", dir: "auto", title: plain(words) }, plain(words)),
    make("p", { class: "score", title: `${t("score")} ${hit.score.toFixed(4)} · ${t("cosine")} ${hit.cosine.toFixed(4)}` },
      `${hit.rank} · ${sure}`));
  element.dataset.at = at;
  picture.src = thumbnail(hit.id, size, generation);
  marked(element, hit);
  return element;
}

function marked(element, hit) {
  const on = selection.has(hit);
  element.classList.toggle("picked", on);
  const mark = element.querySelector(".mark");
  mark?.setAttribute("aria-pressed", String(on));
  if (mark) label(mark, t("select"));
}

/** Focus the tile at `at`; one place in the tab order for all of them. */
export function focus(at) {
  if (!hits.length) return;
  const place = Math.min(Math.max(at, 0), hits.length - 1);
  const page = pages[Math.floor(place / PAGE)];
  if (!page.shown) render(page);
  for (const one of $("grid").querySelectorAll(".open[tabindex='0']")) one.tabIndex = -1;
  const found = page.element.children[place - page.start].querySelector(".open");
  found.tabIndex = 0;
  current = place;
  found.focus({ preventScroll: true });
  found.closest(".tile").scrollIntoView({ block: "nearest" });
}

function keys(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  if (event.key in moves) {
    const next = current + moves[event.key];
    event.preventDefault();
    if (next >= 0 && next < hits.length) focus(next);
    else if (next < 0 && event.key === "ArrowUp") $("q").focus();
  } else if (event.key === "Home") focus(0);
  else if (event.key === "End") focus(hits.length - 1);
  else if (event.key === "s") act.similar(hits[current]);
  else if (event.key === "x") selection.toggle(hits[current]);
  else return;
  event.preventDefault();
}
