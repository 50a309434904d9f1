/** Pictures that a person has picked out, and taking them along as a list. */

import { $, CROSS, icon, make } from "./dom.js";
import { count, label, onLanguage, t } from "./i18n.js";

const picked = new Map();
const listeners = [];

export const onChange = (listener) => listeners.push(listener);
export const has = (hit) => picked.has(hit?.id);

export function toggle(hit) {
  if (!hit) return;
  if (!picked.delete(hit.id)) picked.set(hit.id, hit);
  changed();
}

function clear() {
  picked.clear();
  changed();
}

function changed() {
  show();
  for (const listener of listeners) listener();
}

// A spreadsheet runs what begins so; a quote before it is what they all take for text.
const cell = (value) => {
  const text = String(value);
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

function csv() {
  const rows = [...picked.values()].map((hit) => [hit.path, hit.caption, hit.score]);
  return [["image_path", "caption", "score"], ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

const paths = () => [...picked.values()].map((hit) => hit.path).join("\n") + "\n";

function save(name, kind, text) {
  const url = URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function copy(event) {
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(paths()); // there is none without TLS
  } catch {
    return save("soutu.txt", "text/plain", paths());
  }
  button.textContent = t("copied");
  setTimeout(() => (button.textContent = t("copy")), 1500);
}

function show() {
  const bar = $("picked");
  bar.hidden = !picked.size;
  document.body.classList.toggle("picking", picked.size > 0);
  if (!picked.size) return bar.replaceChildren();
  const button = (words, onclick) => make("button", { type: "button", onclick }, words);
  const end = make("button", { type: "button", class: "icon", onclick: clear }, icon(CROSS));
  label(end, t("clear"));
  bar.setAttribute("aria-label", t("selected", { n: count(picked.size) }));
  bar.replaceChildren(
    make("strong", { role: "status" }, t("selected", { n: count(picked.size) })),
    button(t("copy"), copy),
    button(t("csv"), () => save("soutu.csv", "text/csv", "\ufeff" + csv())),
    button(t("txt"), () => save("soutu.txt", "text/plain", paths())),
    end,
  );
}

onLanguage(show);
