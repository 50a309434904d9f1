/** Narrowing a search: a form that writes the filter's text, which can be written by hand too. */

import { $ } from "./dom.js";
import { onLanguage, percent, t } from "./i18n.js";

const FIELDS = ["f-folder", "f-after", "f-before", "f-shape", "f-width"];
const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

function written() {
  const [folder, after, before, shape, width] = FIELDS.map((id) => $(id).value.trim());
  return [
    folder && `folder = ${quoted(folder)}`,
    after && `taken >= ${after}`,
    before && `taken <= ${before}`,
    shape && `orientation = ${shape}`,
    width && Number(width) > 0 && `width >= ${Math.round(Number(width))}`,
  ].filter(Boolean).join(" and ");
}

export function fault(words) {
  $("f-fault").textContent = words;
  $("f-where").toggleAttribute("aria-invalid", Boolean(words));
  if (words) open(true);
}

export function open(on) {
  $("filters").hidden = !on;
  $("filter").setAttribute("aria-expanded", String(on));
}

/** Show what `state` says, where it was not said here. */
export function show(state) {
  if ($("f-where").value !== state.where) {
    $("f-where").value = state.where;
    if (state.where !== written()) for (const id of FIELDS) $(id).value = "";
  }
  $("f-sure").value = state.sure;
  shown();
  $("filter").classList.toggle("active", Boolean(state.where || state.sure));
  if (state.where) open(true);
}

function shown() {
  const sure = Number($("f-sure").value);
  $("f-sure-is").textContent = sure ? percent(sure) : t("sureAny");
}

/** `changed` is called with the filter's text and the least confidence. */
export function listen(changed) {
  const tell = () => changed({ where: $("f-where").value.trim(), sure: Number($("f-sure").value) });
  $("filter").addEventListener("click", () => {
    open($("filters").hidden);
    if (!$("filters").hidden) $("f-folder").focus();
  });
  for (const id of FIELDS) {
    $(id).addEventListener("change", () => {
      $("f-where").value = written();
      tell();
    });
  }
  $("f-sure").addEventListener("input", shown);
  for (const id of ["f-where", "f-sure"]) $(id).addEventListener("change", tell);
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    tell();
  });
  $("f-clear").addEventListener("click", () => {
    for (const id of [...FIELDS, "f-where"]) $(id).value = "";
    $("f-sure").value = 0;
    shown();
    tell();
  });
  onLanguage(shown);
}
