/** One result: its picture, its caption, how sure it is, and what can be done with it. */

import { thumbnail } from "./api.js";
import { LIKE, TICK, icon, make, plain } from "./dom.js";
import { label, percent, t } from "./i18n.js";
import * as selection from "./selection.js";

const SIDES = [256, 512, 1024]; // of thumbnails
const SOFT = 1.15; // how much one may be enlarged before the next larger is better

const AGAIN = [700, 2500]; // ms after which what did not come is asked for again

const side = (box) => {
  const needed = Math.max(box.width, box.height) * devicePixelRatio;
  return SIDES.find((one) => one * SOFT >= needed) ?? SIDES.at(-1);
};

/** @param {{open: function(number), similar: function(Object)}} act */
export function tile(hit, at, box, generation, act) {
  const words = plain(hit.caption || hit.path);
  const src = thumbnail(hit.id, side(box), generation);
  let lost = 0;
  const picture = make("img", { alt: "", decoding: "async", draggable: false, src,
    onload: () => element.classList.add("there"),
    onerror: () => { // the server may only have been busy
      if (lost === AGAIN.length) element.classList.add("gone");
      else setTimeout(() => element.isConnected && (picture.src = src), AGAIN[lost++]);
    } });
  const open = make("button", { type: "button", class: "open", tabIndex: -1,
    "aria-label": `${hit.rank}. ${words}`, onclick: () => act.open(at) }, picture,
    make("span", { class: "lost" }, t("noImage")));
  const mark = make("button", { type: "button", class: "mark", tabIndex: -1, onclick: () => selection.toggle(hit) }, icon(TICK));
  const like = make("button", { type: "button", class: "more", tabIndex: -1, onclick: () => act.similar(hit) }, icon(LIKE));
  label(like, t("similar"));
  const sure = hit.confidence === null ? hit.score.toFixed(3) : percent(hit.confidence);
  const numbers = `${t("score")} ${hit.score.toFixed(4)} · ${t("cosine")} ${hit.cosine.toFixed(4)}`;
  const element = make("div", { class: "tile", role: "listitem", "aria-posinset": at + 1 }, open, mark, like,
    make("p", { class: "foot" }, make("span", { class: "words", dir: "auto", title: words }, words),
      make("span", { class: "score", title: numbers }, sure)));
  element.dataset.at = at;
  place(element, box);
  marked(element, hit);
  return element;
}

/** Put it where it belongs. */
export function place(element, box) {
  element.style.transform = `translate(${box.x}px, ${box.y}px)`;
  element.style.width = `${box.width}px`;
  element.style.height = `${box.height}px`;
}

export function marked(element, hit) {
  const on = selection.has(hit);
  element.classList.toggle("picked", on);
  const mark = element.querySelector(".mark");
  mark.setAttribute("aria-pressed", String(on));
  label(mark, t("select"));
}
