/** The search box: searches while somebody types, at once on Enter, never amid composing. */

import { $ } from "./dom.js";

const TYPING = 250; // ms after the last letter
let composing = false;
let ahead = false; // what stands in it has not been looked for yet
let timer = 0;

/** What stands in it and has not been looked for yet; null where there is nothing like that. */
export const pending = () => (ahead ? $("q").value : null);

/** It is being looked for, or something else is. */
export function taken() {
  clearTimeout(timer);
  ahead = false;
}

/** Show what is looked for; what is just being typed stays. */
export function show(text) {
  if (!ahead && !composing && $("q").value !== text) $("q").value = text;
}

export function focus() {
  $("q").focus({ preventScroll: true });
  $("q").select();
}

/** `actions`: typed(text) after a pause, entered(text), down() to the results. */
export function listen({ typed, entered, down }) {
  const box = $("q");
  const soon = () => {
    clearTimeout(timer);
    ahead = true;
    if (!composing) timer = setTimeout(() => typed(box.value), TYPING);
  };
  box.addEventListener("compositionstart", () => (composing = true));
  box.addEventListener("compositionend", () => {
    composing = false;
    soon();
  });
  box.addEventListener("input", soon);
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!composing) entered(box.value);
  });
  box.addEventListener("keydown", (event) => {
    if (composing) return;
    if (event.key === "ArrowDown" && down()) event.preventDefault();
    else if (event.key === "Escape") box.blur();
  });
}
