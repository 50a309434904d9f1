/** The filter form: it writes the filter's text, which can be written by hand too. */

import { $ } from "./dom.js";
import { onLanguage, percent, t } from "./i18n.js";

const FIELDS = ["f-folder", "f-after", "f-before", "f-shape", "f-width"];
const quote = (text) => `'${text.replaceAll("'", "''")}'`;

/** What each field writes, in their order. */
const CLAUSES = [
  /^folder\s*=\s*(?:'((?:[^']|'')*)'|"((?:[^"]|"")*)")$/i,
  /^taken\s*>=\s*(\d{4}-\d\d-\d\d)$/i,
  /^taken\s*<=\s*(\d{4}-\d\d-\d\d)$/i,
  /^orientation\s*=\s*(landscape|portrait|square)$/i,
  /^width\s*>=\s*(\d+)$/i,
];
let rest = []; // conditions that have no field; kept as they are

/** The conditions that "and" joins; one, where the text has brackets, "or" or "not". */
function split(where) {
  const parts = where.match(/'(?:[^']|'')*'|"(?:[^"]|"")*"|[^'"]+/g) ?? [];
  const outside = parts.filter((part) => !/^['"]/.test(part)).join(" ");
  if (/[()]|\b(or|not)\b/i.test(outside)) return [where];
  const conditions = [""];
  for (const part of parts) {
    const pieces = /^['"]/.test(part) ? [part] : part.split(/\band\b/i);
    conditions[conditions.length - 1] += pieces[0];
    conditions.push(...pieces.slice(1));
  }
  return conditions.map((condition) => condition.trim()).filter(Boolean);
}

/** Fill the fields with what `where` says of them. */
function fill(where) {
  const values = FIELDS.map(() => "");
  rest = [];
  for (const condition of split(where)) {
    const index = CLAUSES.findIndex((clause, n) => !values[n] && clause.test(condition));
    if (index < 0) {
      rest.push(condition);
      continue;
    }
    const [, single, double] = CLAUSES[index].exec(condition);
    values[index] = double === undefined ? single.replaceAll("''", "'") : double.replaceAll('""', '"');
  }
  FIELDS.forEach((id, index) => ($(id).value = values[index]));
}

function filterText() {
  const [folder, after, before, shape, width] = FIELDS.map((id) => $(id).value.trim());
  const fields = [
    folder && `folder = ${quote(folder)}`,
    after && `taken >= ${after}`,
    before && `taken <= ${before}`,
    shape && `orientation = ${shape}`,
    width && Number(width) > 0 && `width >= ${Math.round(Number(width))}`,
  ].filter(Boolean);
  const others = fields.length && rest.length === 1 && /\bor\b/i.test(rest[0]) ? [`(${rest[0]})`] : rest;
  return [...fields, ...others].join(" and ");
}

/** `where` with `suggestion` in place of its condition on the same field; "" where that is unclear. */
export function replaced(where, suggestion) {
  const conditions = split(where);
  const [field] = suggestion.split(" ");
  const same = conditions.map((condition) => /^(\w+)\s*=\s*('([^']|'')*'|"([^"]|"")*"|[^\s'"()]+)$/.exec(condition)?.[1].toLowerCase() === field);
  return same.filter(Boolean).length === 1 ? conditions.map((condition, n) => (same[n] ? suggestion : condition)).join(" and ") : "";
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
  if ($("f-where").value !== state.where) $("f-where").value = state.where;
  if (state.where !== filterText()) fill(state.where);
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
    rest = [];
    for (const id of [...FIELDS, "f-where"]) $(id).value = "";
    $("f-confidence").value = 0;
    renderConfidence();
    notify();
  });
  onLanguage(renderConfidence);
}
