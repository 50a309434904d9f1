/** One picture, large, with all that is known of it. */

import { ask, image, thumbnail } from "./api.js";
import { $, CROSS, DOWN, LEFT, LIKE, RIGHT, TICK, icon, make, plain } from "./dom.js";
import { label, lang, percent, t } from "./i18n.js";
import * as selection from "./selection.js";

let list = { all: () => [], more: () => {}, focus: () => {}, similar: () => {} };
let at = 0;
let generation = 0;
const box = () => $("viewer");

/** `actions`: all() the hits, more() loads the next, focus(at), similar(hit). */
export function listen(actions) {
  list = actions;
  box().addEventListener("close", () => {
    box().replaceChildren();
    list.focus(at);
  });
  box().addEventListener("click", (event) => event.target === box() && box().close());
  box().addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const done = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), s: similar, x: pick }[event.key];
    if (!done) return;
    event.preventDefault();
    done();
  });
}

export function open(place, known) {
  at = place;
  generation = known;
  show();
  box().showModal();
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
  const picture = make("img", { alt: words, src: thumbnail(hit.id, 1024, generation),
    width: hit.width || undefined, height: hit.height || undefined,
    onerror: () => picture.replaceWith(make("p", { class: "lost" }, t("noImage"))) });
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
  ask(`/images/${hit.id}/info`, { lang }).then((info) => {
    if (list.all()[at] !== hit || !box().open) return;
    if (info.captions.length > 1) captions.replaceChildren(...info.captions.map((one) => make("p", { dir: "auto" }, plain(one))));
    fact("taken", info.taken.replace("T", " "));
  }, () => {});
}
