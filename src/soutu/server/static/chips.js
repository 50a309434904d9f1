/** What was searched for: each variant a chip, to be switched off or weighed; and how sure it is. */

import { $, make, plain } from "./dom.js";
import { percent, t } from "./i18n.js";

const WEIGHTS = [0.25, 0.5, 1, 1.5, 2, 3];
const LIKELY = 0.6;
const UNLIKELY = 0.25;
const AGREE = 0.6;

const name = (source) => {
  const [kind, sense] = source.split(":");
  return (t("source")[kind] ?? kind) + (sense ? ` (${sense})` : "");
};

function step(weight, by) {
  const near = WEIGHTS.reduce((a, b) => (Math.abs(b - weight) < Math.abs(a - weight) ? b : a));
  return WEIGHTS[Math.min(Math.max(WEIGHTS.indexOf(near) + by, 0), WEIGHTS.length - 1)];
}

const times = (weight) => `×${+weight.toFixed(2)}`;
const called = (button) => button.getAttribute("aria-label") ?? button.textContent;
const same = (a, b) => a.text === b.text && a.term === b.term;

/** Show the variants of `answer`; `choose` is called with those that a person wants instead (null:
 * as proposed). */
export function show(answer, state, choose) {
  const focused = $("chips").contains(document.activeElement) && called(document.activeElement);
  const { terms } = answer.query;
  const groups = terms.map((term, place) => {
    const chips = answer.variants.filter((one) => one.term === place).map((one) => chip(one, answer.variants, choose));
    if (!chips.length) chips.push(make("span", { class: "chip on", dir: "auto" }, make("span", { class: "name" }, plain(term.value))));
    return make("span", { class: "term" }, terms.length > 1 && sign(term.weight, place), ...chips);
  });
  if (state.variants) {
    groups.push(make("button", { type: "button", class: "reset", onclick: () => choose(null) }, t("reset")));
  }
  $("chips").replaceChildren(...groups);
  if (focused) {
    const buttons = [...$("chips").querySelectorAll("button:not(:disabled)")];
    (buttons.find((one) => called(one) === focused) ?? buttons[0])?.focus();
  }
  sureness(answer);
  $("said").hidden = !answer.variants.length;
}

/** What joins a term to those before it: + or −, and its weight where it has one. */
function sign(weight, place) {
  const mark = weight < 0 ? "−" : place ? "+" : "";
  return make("span", { class: "sign" }, mark + (Math.abs(weight) === 1 ? "" : `${+Math.abs(weight).toFixed(2)} ×`));
}

function chip(one, said, choose) {
  const on = !one.unused;
  const chosen = (change) =>
    said.filter((v) => !v.unused).map(({ text, weight, term }) => ({ text, weight, term })).flatMap(change);
  const last = on && said.filter((v) => v.term === one.term && !v.unused).length === 1;
  const words = [name(one.source), t("unused")[one.unused]].filter(Boolean).join(" · ");
  const toggle = () =>
    choose(on ? chosen((v) => (same(v, one) ? [] : [v]))
      : [...chosen((v) => [v]), { text: one.text, weight: one.weight || 1, term: one.term }]);
  const weigh = (by) => () => choose(chosen((v) => [same(v, one) ? { ...v, weight: step(v.weight, by) } : v]));
  const shown = plain(one.text);
  const scale = (by, mark, code) =>
    make("button", { type: "button", class: "weigh", onclick: weigh(by), disabled: step(one.weight, by) === one.weight,
      "aria-label": t(code, { t: shown }) }, mark);
  const many = on && said.length > 1;
  return make("span", { class: on ? "chip on" : "chip" },
    make("button", { type: "button", class: "name", "aria-pressed": String(on), "aria-disabled": String(last), title: words,
      dir: "auto", onclick: () => last || toggle() }, shown),
    many && scale(-1, "−", "less"),
    on && one.weight !== 1 && make("span", { class: "times" }, times(one.weight)),
    many && scale(1, "+", "morew"));
}

function sureness(answer) {
  const { confidence: sure, agreement, variants } = answer;
  const parts = [];
  if (sure !== null && answer.hits.length) {
    const code = sure >= LIKELY ? "likely" : sure >= UNLIKELY ? "perhaps" : "unlikely";
    const full = make("i");
    full.style.width = `${Math.round(sure * 100)}%`;
    parts.push(make("span", { class: `sure ${code}` },
      make("span", { class: "gauge", "aria-hidden": "true" }, full), t(code, { p: percent(sure) })));
  }
  if (variants.filter((one) => !one.unused).length > 1) {
    const low = agreement < AGREE;
    parts.push(make("span", { class: low ? "low" : "" }, t(low ? "disagree" : "agree", { a: agreement.toFixed(2) })));
  }
  $("sureness").replaceChildren(...parts);
}
