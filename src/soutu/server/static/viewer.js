/** The viewer: one picture, large, with all that is known of it. */

import { imageUrl, request, thumbnailUrl } from "./api.js";
import { $, CROSS, DOWN, h, icon, iconButton, label, LEFT, LIKE, plain, RIGHT, TICK } from "./dom.js";
import { fileSize, lang, percent, t } from "./i18n.js";
import * as selection from "./selection.js";

const SIDE = 1024; // the largest thumbnail
const MAX_PIXELS = 50e6; // of a picture that is loaded in full
const SWIPE = 60; // pixels that a finger moves to the next picture

let grid = { all: () => [], more: () => {}, focus: () => {}, similar: () => {}, moved: () => {}, closed: () => {} };
let current = 0;
let generation = 0;
const dialog = () => $("viewer");

/** Set what the viewer calls: all(), more(), focus(index), similar(hit), moved(hit), closed(). */
export function listen(handlers) {
  grid = handlers;
  dialog().addEventListener("close", () => {
    dialog().replaceChildren();
    if (current < 0) return;
    grid.focus(current);
    grid.closed();
  });
  dialog().addEventListener("click", (event) => event.target === dialog() && dialog().close());
  dialog().addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const action = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), s: similar, x: toggleSelected }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  let from = null;
  dialog().addEventListener("touchstart", (event) => (from = event.touches.length === 1 ? event.touches[0] : null), { passive: true });
  dialog().addEventListener("touchend", (event) => {
    const to = event.changedTouches[0];
    const [x, y] = from ? [to.clientX - from.clientX, to.clientY - from.clientY] : [0, 0];
    if (Math.abs(x) > SWIPE && Math.abs(x) > 2 * Math.abs(y)) move(x < 0 ? 1 : -1);
  }, { passive: true });
}

export function open(index, indexGeneration) {
  current = index;
  generation = indexGeneration;
  render();
  if (!dialog().open) dialog().showModal();
}

export const close = () => dialog().open && dialog().close();

/** Close without going back to the grid, whose results are others now. */
export function leave() {
  current = -1;
  if (dialog().open) dialog().close();
}

function similar() {
  const hit = grid.all()[current];
  leave();
  grid.similar(hit);
}

function toggleSelected() {
  selection.toggle(grid.all()[current]);
  dialog().querySelector(".select")?.setAttribute("aria-pressed", String(selection.has(grid.all()[current])));
}

async function move(by) {
  if (current + by >= grid.all().length) await grid.more();
  if (current + by < 0 || current + by >= grid.all().length) return;
  current += by;
  render(by);
  grid.moved(grid.all()[current]);
}

function render(moved) {
  const hit = grid.all()[current];
  const caption = plain(hit.caption || hit.path);
  const download = label(h("a", { class: "icon", href: `${imageUrl(hit.id)}?download=true`, download: hit.path.split("/").pop() }, icon(DOWN)), t("download"));
  const select = iconButton(TICK, t("select"), toggleSelected, { class: "icon select" });
  select.setAttribute("aria-pressed", String(selection.has(hit)));
  const picture = largePicture(hit, caption);
  const facts = h("dl", {});
  const fact = (code, value) => value && facts.append(h("dt", {}, t(code)), h("dd", { dir: "auto" }, plain(value)));
  fact("path", hit.path);
  fact("also", hit.also.join(" · "));
  fact("size", hit.width ? `${hit.width} × ${hit.height}` : "");
  fact("confidence", hit.confidence === null ? "" : percent(hit.confidence));
  fact("score", hit.score?.toFixed(4));
  fact("cosine", hit.cosine?.toFixed(4));
  const captions = h("div", { class: "captions" }, h("p", { dir: "auto" }, caption));
  const previous = iconButton(LEFT, t("prev"), () => move(-1), { class: "icon prev" });
  const next = iconButton(RIGHT, t("next"), () => move(1), { class: "icon next" });
  previous.disabled = current === 0;
  dialog().setAttribute("aria-label", caption);
  dialog().replaceChildren(
    h("div", { class: "bar" }, h("span", { class: "rank" }, `${hit.rank}`), iconButton(LIKE, t("similar"), similar, { class: "icon sim" }), select, download,
      iconButton(CROSS, t("close"), () => dialog().close())),
    h("div", { class: "stage" }, previous, h("a", { href: imageUrl(hit.id), target: "_blank", rel: "noopener", title: t("open") }, picture), next),
    h("div", { class: "about" }, captions, facts),
  );
  if (moved) (moved < 0 && current > 0 ? previous : next).focus();
  preload(current + 1);
  preload(current - 1);
  request(`/images/${hit.id}/info`, { lang }).then((info) => {
    if (grid.all()[current] !== hit || !dialog().open) return;
    if (info.captions.length > 1) captions.replaceChildren(...info.captions.map((text) => h("p", { dir: "auto" }, plain(text))));
    fact("file", info.size && fileSize(info.size));
    fact("taken", info.taken.replace("T", " "));
  }, () => {});
}

/** Show the thumbnail; where that is too small, the picture itself after it. */
function largePicture(hit, caption) {
  const picture = h("img", { alt: caption, src: thumbnailUrl(hit.id, SIDE, generation),
    width: hit.width || undefined, height: hit.height || undefined,
    onerror: () => picture.replaceWith(h("p", { class: "unavailable" }, t("noImage"))) });
  picture.addEventListener("load", () => {
    const side = Math.max(picture.clientWidth, picture.clientHeight) * devicePixelRatio;
    if (Math.max(hit.width, hit.height) <= SIDE || side <= SIDE || hit.width * hit.height > MAX_PIXELS) return;
    const full = h("img", { src: imageUrl(hit.id) });
    full.decode().then(() => picture.isConnected && (picture.src = full.src), () => {});
  }, { once: true });
  return picture;
}

function preload(index) {
  const hit = grid.all()[index];
  if (hit) new Image().src = thumbnailUrl(hit.id, SIDE, generation);
}
