/** Variants as chips, to switch off or weight; and the confidence. */

import { $, button, h, plain } from "./dom.js";
import { percent, t } from "./i18n.js";

const WEIGHTS = [0.25, 0.5, 1, 1.5, 2, 3];
const VERDICTS = { present: "likely", unsure: "notSure", absent: "unlikely" };
const LOW_AGREEMENT = 0.6;

const sourceName = (source) => {
  const [kind, sense] = source.split(":");
  return (t("source")[kind] ?? kind) + (sense ? ` (${sense})` : "");
};

function nextWeight(weight, by) {
  const nearest = WEIGHTS.reduce((a, b) => (Math.abs(b - weight) < Math.abs(a - weight) ? b : a));
  return WEIGHTS[Math.min(Math.max(WEIGHTS.indexOf(nearest) + by, 0), WEIGHTS.length - 1)];
}

const factor = (weight) => `×${+weight.toFixed(2)}`;
const accessibleName = (button) => button.getAttribute("aria-label") ?? button.textContent;
const same = (a, b) => a.text === b.text && a.term === b.term;

/** Render the variants of `answer`; call `choose(variants)` with those that a person picks instead
 * (null: as proposed). */
export function render(answer, state, choose) {
  const focused = $("chips").contains(document.activeElement) && accessibleName(document.activeElement);
  const { terms } = answer.query;
  const groups = terms.map((term, index) => {
    const chips = answer.variants.filter((variant) => variant.term === index).map((variant) => chip(variant, answer.variants, choose));
    if (!chips.length) chips.push(h("span", { class: "chip on", dir: "auto" }, h("span", { class: "name" }, !index && (state.picture || state.image !== null) ? t("likeThis") : plain(term.value))));
    return h("span", { class: "term" }, terms.length > 1 && sign(term.weight, index), ...chips);
  });
  if (state.variants) {
    groups.push(button({ class: "reset", onclick: () => choose(null) }, t("reset")));
  }
  $("chips").replaceChildren(...groups);
  if (focused) {
    const buttons = [...$("chips").querySelectorAll("button:not(:disabled)")];
    (buttons.find((button) => accessibleName(button) === focused) ?? buttons[0])?.focus();
  }
  renderConfidence(answer);
  $("expansion").hidden = !answer.variants.length;
}

/** What joins a term to those before it: + or −, and its weight. */
function sign(weight, index) {
  const mark = weight < 0 ? "−" : index ? "+" : "";
  return h("span", { class: "sign" }, mark + (Math.abs(weight) === 1 ? "" : `${+Math.abs(weight).toFixed(2)} ×`));
}

function chip(variant, variants, choose) {
  const on = !variant.unused;
  const changed = (change) =>
    variants.filter((v) => !v.unused).map(({ text, weight, term }) => ({ text, weight, term })).flatMap(change);
  const last = on && variants.filter((v) => v.term === variant.term && !v.unused).length === 1;
  const title = [sourceName(variant.source), t("unused")[variant.unused]].filter(Boolean).join(" · ");
  const toggle = () =>
    choose(on ? changed((v) => (same(v, variant) ? [] : [v]))
      : [...changed((v) => [v]), { text: variant.text, weight: variant.weight || 1, term: variant.term }]);
  const reweight = (by) => () => choose(changed((v) => [same(v, variant) ? { ...v, weight: nextWeight(v.weight, by) } : v]));
  const text = plain(variant.text);
  const weightButton = (by, mark, code) =>
    button({ class: "weigh", onclick: reweight(by), disabled: nextWeight(variant.weight, by) === variant.weight,
      "aria-label": t(code, { t: text }) }, mark);
  const adjustable = on && variants.length > 1;
  return h("span", { class: on ? "chip on" : "chip" },
    button({ class: "name", "aria-pressed": String(on), "aria-disabled": String(last), title,
      dir: "auto", onclick: () => last || toggle() }, text),
    adjustable && weightButton(-1, "−", "less"),
    on && variant.weight !== 1 && h("span", { class: "times" }, factor(variant.weight)),
    adjustable && weightButton(1, "+", "morew"));
}

function renderConfidence(answer) {
  const { confidence, verdict, agreement, variants } = answer;
  const parts = [];
  if (confidence !== null && answer.hits.length) {
    const level = h("i");
    level.style.width = `${Math.round(confidence * 100)}%`;
    parts.push(h("span", { class: `confidence ${verdict}` },
      h("span", { class: "gauge", "aria-hidden": "true" }, level), t(VERDICTS[verdict], { p: percent(confidence) })));
  }
  const used = variants.filter((v) => !v.unused);
  if (used.some((v, index) => used.findIndex((other) => other.term === v.term) !== index)) { // of one term
    const low = agreement < LOW_AGREEMENT;
    parts.push(h("span", { class: low ? "low" : "" }, t(low ? "disagree" : "agree", { a: agreement.toFixed(2) })));
  }
  $("confidence").replaceChildren(...parts);
}
