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

/** Show the variants of `answer`; `choose` is called with those that a person wants instead (null:
 * as proposed). */
export function show(answer, state, choose) {
  const at = document.activeElement?.closest?.("#chips")
    ? [...$("chips").querySelectorAll("button")].indexOf(document.activeElement)
    : -1;
  const said = answer.variants;
  const chosen = (change) =>
    said
      .filter((one) => !one.unused)
      .map(({ text, weight, term }) => ({ text, weight, term }))
      .flatMap(change);
  const same = (a, b) => a.text === b.text && a.term === b.term;
  const chips = said.map((one) => {
    const on = !one.unused;
    const last = on && said.filter((other) => other.term === one.term && !other.unused).length === 1;
    const words = [name(one.source), t("unused")[one.unused]].filter(Boolean).join(" · ");
    const toggle = () =>
      choose(on ? chosen((v) => (same(v, one) ? [] : [v]))
        : [...chosen((v) => [v]), { text: one.text, weight: one.weight || 1, term: one.term }]);
    const weigh = (by) => () =>
      choose(chosen((v) => [same(v, one) ? { ...v, weight: step(v.weight, by) } : v]));
    const shown = plain(one.text);
    const scale = (by, sign, code) =>
      make("button", { type: "button", class: "weigh", onclick: weigh(by), disabled: step(one.weight, by) === one.weight,
        "aria-label": t(code, { t: shown }) }, sign);
    return make("span", { class: on ? "chip on" : "chip", title: words, dir: "auto" },
      make("button", { type: "button", class: "name", "aria-pressed": String(on), disabled: last, onclick: toggle }, shown),
      on && said.length > 1 && scale(-1, "−", "less"),
      on && one.weight !== 1 && make("span", { class: "times" }, `×${+one.weight.toFixed(2)}`),
      on && said.length > 1 && scale(1, "+", "morew"));
  });
  if (state.variants) {
    chips.push(make("button", { type: "button", class: "reset", onclick: () => choose(null) }, t("reset")));
  }
  $("chips").replaceChildren(...chips);
  if (at >= 0) {
    const buttons = [...$("chips").querySelectorAll("button:not(:disabled)")];
    buttons[Math.min(at, buttons.length - 1)]?.focus();
  }
  sureness(answer);
  $("said").hidden = !said.length;
}

function sureness(answer) {
  const { confidence: sure, agreement, variants } = answer;
  const parts = [];
  if (sure !== null && answer.hits.length) {
    const code = sure >= LIKELY ? "likely" : sure >= UNLIKELY ? "perhaps" : "unlikely";
    parts.push(make("span", { class: `sure ${code}` },
      make("meter", { min: 0, max: 1, value: sure, "aria-hidden": "true" }), t(code, { p: percent(sure) })));
  }
  if (variants.filter((one) => !one.unused).length > 1) {
    const low = agreement < AGREE;
    parts.push(make("span", { class: low ? "low" : "" }, t(low ? "disagree" : "agree", { a: agreement.toFixed(2) })));
  }
  $("sureness").replaceChildren(...parts);
}
