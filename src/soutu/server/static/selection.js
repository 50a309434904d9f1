/** The selected pictures, and copying or saving them as a list. */

import { $, button, CROSS, h, iconButton } from "./dom.js";
import { formatCount, onLanguage, t } from "./i18n.js";

const selected = new Map();
const listeners = [];

export const onChange = (listener) => listeners.push(listener);
export const has = (hit) => selected.has(hit?.id);

export function toggle(hit) {
  if (!hit) return;
  if (!selected.delete(hit.id)) selected.set(hit.id, hit);
  notify();
}

function clear() {
  selected.clear();
  notify();
}

function notify() {
  render();
  for (const listener of listeners) listener();
}

// A spreadsheet runs a cell that begins like this; a quote before it makes it text.
const cell = (value) => {
  const text = String(value);
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

function csv() {
  const rows = [...selected.values()].map((hit) => [hit.path, hit.caption, hit.score ?? ""]);
  return [["image_path", "caption", "score"], ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

const paths = () => [...selected.values()].map((hit) => hit.path).join("\n") + "\n";

function download(name, kind, text) {
  const url = URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function copy(event) {
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(paths()); // undefined without TLS
  } catch {
    return download("soutu.txt", "text/plain", paths());
  }
  button.textContent = t("copied");
  setTimeout(() => (button.textContent = t("copy")), 1500);
}

function render() {
  const bar = $("selection");
  bar.hidden = !selected.size;
  document.body.classList.toggle("selecting", selected.size > 0);
  if (!selected.size) return bar.replaceChildren();
  bar.setAttribute("aria-label", t("selected", { n: formatCount(selected.size) }));
  bar.replaceChildren(
    h("strong", { role: "status" }, t("selected", { n: formatCount(selected.size) })),
    button({ onclick: copy }, t("copy")),
    button({ onclick: () => download("soutu.csv", "text/csv", "\ufeff" + csv()) }, "CSV"),
    button({ onclick: () => download("soutu.txt", "text/plain", paths()) }, t("txt")),
    iconButton(CROSS, t("clear"), clear),
  );
}

onLanguage(render);
