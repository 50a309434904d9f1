/** The search box: searches while somebody types, at once on Enter, never while composing. */

import { $ } from "./dom.js";

const DEBOUNCE = 250; // ms after the last letter
let composing = false;
let dirty = false; // its text has not been searched for yet
let timer = 0;

/** The text that has not been searched for yet; null if there is none. */
export const pendingText = () => (dirty ? $("q").value : null);

/** Take the text as searched for: it is being, or something else is. */
export function commitInput() {
  clearTimeout(timer);
  dirty = false;
}

export function render(text) {
  if (!dirty && !composing && $("q").value !== text) $("q").value = text;
}

export function focus() {
  $("q").focus({ preventScroll: true });
  $("q").select();
}

/** Call `onType(text)` after a pause, `onEnter(text)`, and `onDown()`. */
export function listen({ onType, onEnter, onDown }) {
  const input = $("q");
  const schedule = () => {
    clearTimeout(timer);
    dirty = true;
    if (!composing) timer = setTimeout(() => onType(input.value), DEBOUNCE);
  };
  input.addEventListener("compositionstart", () => (composing = true));
  input.addEventListener("compositionend", () => {
    composing = false;
    schedule();
  });
  input.addEventListener("input", schedule);
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!composing) onEnter(input.value);
  });
  input.addEventListener("keydown", (event) => {
    if (composing) return;
    if (event.key === "ArrowDown" && onDown()) event.preventDefault();
    else if (event.key === "Escape") input.blur();
  });
}
