/** Dialogs: help, earlier searches, signing in. */

import { ask } from "./api.js";
import { $, CROSS, icon, make } from "./dom.js";
import { label, t } from "./i18n.js";
import { forget, past } from "./state.js";

function open(box, title, ...inside) {
  const end = make("button", { type: "button", class: "icon", onclick: () => box.close() }, icon(CROSS));
  label(end, t("close"));
  box.setAttribute("aria-label", title);
  box.replaceChildren(make("div", { class: "bar" }, make("h2", {}, title), end), ...inside);
  if (!box.open) box.showModal();
}

const pairs = (rows) => make("dl", { class: "pairs" },
  ...rows.flatMap(([key, words]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, words)]));

export const help = () => open($("help"), t("helpTitle"), pairs(t("help")), make("h3", {}, t("keysTitle")), pairs(t("keyList")));

/** `go` is called with the address of the search that a person picks. */
export function history(go) {
  const box = $("history");
  const entries = past().map((address) => {
    const said = new URLSearchParams(address.split("?")[1]);
    const words = [said.get("q"), said.get("where")].filter(Boolean).join(" · ");
    return make("li", {}, make("a", { href: address, dir: "auto", onclick: (event) => {
      event.preventDefault();
      box.close();
      go(address);
    } }, words));
  });
  const clear = make("button", { type: "button", onclick: () => {
    forget();
    history(go);
  } }, t("clear"));
  open(box, t("history"), ...(entries.length ? [make("ul", {}, ...entries), clear] : [make("p", {}, t("noHistory"))]));
}

let asking = null;

/** Asks for the token until it is right; one dialog for all that wait for it. */
export function signIn() {
  asking ??= tokenGiven().finally(() => (asking = null));
  return asking;
}

const post = (token) => ask("/session", { body: { token } });

async function tokenGiven() {
  const given = /^#token=(.+)$/.exec(location.hash)?.[1];
  if (given) {
    window.history.replaceState(window.history.state, "", location.pathname + location.search);
    try {
      return await post(decodeURIComponent(given));
    } catch {
      /* then it is asked for */
    }
  }
  const box = $("signin");
  box.addEventListener("cancel", (event) => event.preventDefault());
  return new Promise((done) => {
    const input = make("input", { type: "password", name: "token", autocomplete: "current-password", required: true });
    const fault = make("p", { class: "fault", role: "alert" });
    const form = make("form", { onsubmit: async (event) => {
      event.preventDefault();
      try {
        await post(input.value.trim());
        box.close();
        done();
      } catch (error) {
        fault.textContent = error.message;
        input.select();
      }
    } }, make("label", {}, t("token"), input), make("button", { type: "submit", class: "primary" }, t("enter")), fault);
    box.setAttribute("aria-label", t("signin"));
    box.replaceChildren(make("h2", {}, t("signin")), form);
    box.showModal();
  });
}
