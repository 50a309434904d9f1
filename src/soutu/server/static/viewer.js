/** One picture, large, with all that is known of it. */

import { ask, image, thumbnail } from "./api.js";
import { $, CROSS, DOWN, LEFT, LIKE, RIGHT, TICK, icon, make, plain } from "./dom.js";
import { bytes, label, lang, percent, t } from "./i18n.js";
import * as selection from "./selection.js";

const SIDE = 1024; // the largest thumbnail
const MOST = 50e6; // pixels of a picture that is loaded whole
const SWIPE = 60; // pixels of a finger's way to the next picture

let list = { all: () => [], more: () => {}, focus: () => {}, similar: () => {} };
let at = 0;
let generation = 0;
const box = () => $("viewer");

/** `actions`: all() the hits, more() loads the next, focus(at), similar(hit). */
export function listen(actions) {
  list = actions;
  box().addEventListener("close", () => {
    box().replaceChildren();
    if (at >= 0) list.focus(at);
  });
  box().addEventListener("click", (event) => event.target === box() && box().close());
  box().addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const done = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), s: similar, x: pick }[event.key];
    if (!done) return;
    event.preventDefault();
    done();
  });
  let from = null;
  box().addEventListener("touchstart", (event) => (from = event.touches.length === 1 ? event.touches[0] : null), { passive: true });
  box().addEventListener("touchend", (event) => {
    const to = event.changedTouches[0];
    const [x, y] = from ? [to.clientX - from.clientX, to.clientY - from.clientY] : [0, 0];
    if (Math.abs(x) > SWIPE && Math.abs(x) > 2 * Math.abs(y)) move(x < 0 ? 1 : -1);
  }, { passive: true });
}

export function open(place, known) {
  at = place;
  generation = known;
  show();
  box().showModal();
}

/** The list is another now. */
export function leave() {
  at = -1;
  if (box().open) box().close();
}

function similar() {
  const hit = list.all()[at];
  box().close();
  list.similar(hit);
}

function pick() {
  selection.toggle(list.all()[at]);
  box().querySelector(".pick")?.setAttribute("aria-pressed", String(selection.has(list.all()[at])));
}

async function move(by) {
  if (at + by >= list.all().length) await list.more();
  if (at + by < 0 || at + by >= list.all().length) return;
  at += by;
  show(by);
}

function show(moved) {
  const hit = list.all()[at];
  const words = plain(hit.caption || hit.path);
  const button = (code, path, onclick, more = "") => {
    const found = make("button", { type: "button", class: `icon ${more}`, onclick }, icon(path));
    label(found, t(code));
    return found;
  };
  const get = make("a", { class: "icon", href: `${image(hit.id)}?download=true`, download: hit.path.split("/").pop() }, icon(DOWN));
  label(get, t("download"));
  const tick = button("select", TICK, pick, "pick");
  tick.setAttribute("aria-pressed", String(selection.has(hit)));
  const picture = large(hit, words);
  const facts = make("dl", {});
  const fact = (code, value) => value && facts.append(make("dt", {}, t(code)), make("dd", { dir: "auto" }, plain(value)));
  fact("path", hit.path);
  fact("also", hit.also.join(" · "));
  fact("size", hit.width ? `${hit.width} × ${hit.height}` : "");
  fact("confidence", hit.confidence === null ? "" : percent(hit.confidence));
  fact("score", hit.score.toFixed(4));
  fact("cosine", hit.cosine.toFixed(4));
  const captions = make("div", { class: "captions" }, make("p", { dir: "auto" }, words));
  const before = button("prev", LEFT, () => move(-1), "prev");
  const after = button("next", RIGHT, () => move(1), "next");
  before.disabled = at === 0;
  box().setAttribute("aria-label", words);
  box().replaceChildren(
    make("div", { class: "bar" }, make("span", { class: "rank" }, `${hit.rank}`), button("similar", LIKE, similar, "sim"), tick, get,
      button("close", CROSS, () => box().close())),
    make("div", { class: "stage" }, before, make("a", { href: image(hit.id), target: "_blank", rel: "noopener", title: t("open") }, picture), after),
    make("div", { class: "about" }, captions, facts),
  );
  if (moved) (moved < 0 && at > 0 ? before : after).focus();
  ready(at + 1);
  ready(at - 1);
  ask(`/images/${hit.id}/info`, { lang }).then((info) => {
    if (list.all()[at] !== hit || !box().open) return;
    if (info.captions.length > 1) captions.replaceChildren(...info.captions.map((one) => make("p", { dir: "auto" }, plain(one))));
    fact("file", info.size && bytes(info.size));
    fact("taken", info.taken.replace("T", " "));
  }, () => {});
}

/** The thumbnail, and where that is too small for the window, the picture itself after it. */
function large(hit, words) {
  const picture = make("img", { alt: words, src: thumbnail(hit.id, SIDE, generation),
    width: hit.width || undefined, height: hit.height || undefined,
    onerror: () => picture.replaceWith(make("p", { class: "lost" }, t("noImage"))) });
  picture.addEventListener("load", () => {
    const shown = Math.max(picture.clientWidth, picture.clientHeight) * devicePixelRatio;
    if (Math.max(hit.width, hit.height) <= SIDE || shown <= SIDE || hit.width * hit.height > MOST) return;
    const whole = make("img", { src: image(hit.id) });
    whole.decode().then(() => picture.isConnected && (picture.src = whole.src), () => {});
  }, { once: true });
  return picture;
}

/** The browser has the picture at `place` before it is asked for. */
function ready(place) {
  const hit = list.all()[place];
  if (hit) new Image().src = thumbnail(hit.id, SIDE, generation);
}
