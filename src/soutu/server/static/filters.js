/** The filter form: it writes the filter's text, which can be written by hand too. */

import { $ } from "./dom.js";
import { onLanguage, percent, t } from "./i18n.js";

const FIELDS = ["f-folder", "f-after", "f-before", "f-shape", "f-width"];
const quote = (text) => `'${text.replaceAll("'", "''")}'`;

function filterText() {
  const [folder, after, before, shape, width] = FIELDS.map((id) => $(id).value.trim());
  return [
    folder && `folder = ${quote(folder)}`,
    after && `taken >= ${after}`,
    before && `taken <= ${before}`,
    shape && `orientation = ${shape}`,
    width && Number(width) > 0 && `width >= ${Math.round(Number(width))}`,
  ].filter(Boolean).join(" and ");
}

export function showError(message) {
  $("f-error").textContent = message;
  $("f-where").toggleAttribute("aria-invalid", Boolean(message));
  if (message) open(true);
}

export function open(on) {
  $("filters").hidden = !on;
  $("filter").setAttribute("aria-expanded", String(on));
}

export function render(state) {
  if ($("f-where").value !== state.where) {
    $("f-where").value = state.where;
    if (state.where !== filterText()) for (const id of FIELDS) $(id).value = "";
  }
  $("f-confidence").value = state.minConfidence;
  renderConfidence();
  $("filter").classList.toggle("active", Boolean(state.where || state.minConfidence));
  if (state.where) open(true);
}

function renderConfidence() {
  const confidence = Number($("f-confidence").value);
  $("f-confidence-value").textContent = confidence ? percent(confidence) : t("sureAny");
}

/** Call `onChange` with the filter's text and the least confidence. */
export function listen(onChange) {
  const notify = () => onChange({ where: $("f-where").value.trim(), minConfidence: Number($("f-confidence").value) });
  $("filter").addEventListener("click", () => {
    open($("filters").hidden);
    if (!$("filters").hidden) $("f-folder").focus();
  });
  for (const id of FIELDS) {
    $(id).addEventListener("change", () => {
      $("f-where").value = filterText();
      notify();
    });
  }
  $("f-confidence").addEventListener("input", renderConfidence);
  for (const id of ["f-where", "f-confidence"]) $(id).addEventListener("change", notify);
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    notify();
  });
  $("f-clear").addEventListener("click", () => {
    for (const id of [...FIELDS, "f-where"]) $(id).value = "";
    $("f-confidence").value = 0;
    renderConfidence();
    notify();
  });
  onLanguage(renderConfidence);
}
