/** The card of a result: picture, caption, confidence, and buttons. */

import { thumbnailUrl } from "./api.js";
import { button, fileName, h, icon, iconButton, label, LIKE, plain, TICK } from "./dom.js";
import { percent, t } from "./i18n.js";
import * as selection from "./selection.js";

const SIDES = [256, 512, 1024]; // of thumbnails, in pixels
const MAX_ENLARGEMENT = 1.15; // of a thumbnail, before the next larger one is better

const RETRY_DELAYS = [700, 2500]; // ms

const thumbnailSide = (box) => {
  const needed = Math.max(box.width, box.height) * devicePixelRatio;
  return SIDES.find((side) => side * MAX_ENLARGEMENT >= needed) ?? SIDES.at(-1);
};

/** @param {{open: function(number), similar: function(Object)}} actions */
export function card(hit, index, box, generation, actions) {
  const caption = plain(hit.caption || fileName(hit.path));
  const src = thumbnailUrl(hit.id, thumbnailSide(box), generation);
  let failures = 0;
  const picture = h("img", { alt: "", decoding: "async", draggable: false, src,
    onload: () => element.classList.add("loaded"),
    onerror: () => { // the server may only have been busy
      if (failures === RETRY_DELAYS.length) element.classList.add("failed");
      else setTimeout(() => element.isConnected && (picture.src = src), RETRY_DELAYS[failures++]);
    } });
  const open = button({ class: "open", tabIndex: -1,
    "aria-label": `${hit.rank}. ${caption}`, onclick: () => actions.open(index) }, picture,
    h("span", { class: "unavailable" }, t("noImage")));
  const mark = button({ class: "mark", tabIndex: -1, onclick: () => selection.toggle(hit) }, icon(TICK));
  const like = iconButton(LIKE, t("similar"), () => actions.similar(hit), { class: "more", tabIndex: -1 });
  const listed = hit.score === undefined; // not found by a search
  const confidence = listed ? hit.taken.slice(0, 10) : hit.confidence === null ? hit.score.toFixed(3) : percent(hit.confidence);
  const scores = listed ? t("taken") : `${t("score")} ${hit.score.toFixed(4)} · ${t("cosine")} ${hit.cosine.toFixed(4)}`;
  const element = h("div", { class: "card", role: "listitem", "aria-posinset": index + 1 }, open, mark, like,
    h("p", { class: "foot" }, h("span", { class: "caption", dir: "auto", title: plain(hit.caption ? `${hit.caption}\n${hit.path}` : hit.path) }, caption),
      h("span", { class: "score", title: scores }, confidence)));
  element.dataset.index = index;
  position(element, box);
  markSelected(element, hit);
  return element;
}

export function position(element, box) {
  element.style.transform = `translate(${box.x}px, ${box.y}px)`;
  element.style.width = `${box.width}px`;
  element.style.height = `${box.height}px`;
}

export function markSelected(element, hit) {
  const on = selection.has(hit);
  element.classList.toggle("selected", on);
  const mark = element.querySelector(".mark");
  mark.setAttribute("aria-pressed", String(on));
  label(mark, t("select"));
}
