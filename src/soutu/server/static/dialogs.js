/** Dialogs: help, search history, sign-in. */

import { request } from "./api.js";
import { $, button, CROSS, h, iconButton } from "./dom.js";
import { lang, t } from "./i18n.js";
import { clearHistory, load, save, searchHistory } from "./state.js";

function open(dialog, title, ...children) {
  const close = iconButton(CROSS, t("close"), () => dialog.close());
  dialog.setAttribute("aria-label", title);
  dialog.replaceChildren(h("div", { class: "bar" }, h("h2", {}, title), close), ...children);
  if (!dialog.open) dialog.showModal();
}

const definitions = (rows) => h("dl", { class: "pairs" },
  ...rows.flatMap(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)]));

export const help = () => open($("help"), t("helpTitle"), definitions(t("help")), h("h3", {}, t("keysTitle")),
  definitions(t("keyList")), ...(load("session") ? [h("p", {}, button({ onclick: signOut }, t("signout")))] : []));

/** Show earlier searches; call `navigate(url)` with the one that a person picks. */
export function history(navigate) {
  const dialog = $("history-dialog");
  const entries = searchHistory().map((url) => {
    const params = new URLSearchParams(url.split("?")[1]);
    const text = [params.has("image") && t("likeThis"), params.get("q"), params.get("where")].filter(Boolean).join(" · ");
    return h("li", {}, h("a", { href: url, dir: "auto", onclick: (event) => {
      event.preventDefault();
      dialog.close();
      navigate(url);
    } }, text));
  });
  const clear = button({ onclick: () => {
    clearHistory();
    history(navigate);
  } }, t("clear"));
  open(dialog, t("history"), ...(entries.length ? [h("ul", {}, ...entries), clear] : [h("p", {}, t("noHistory"))]));
}

let pendingSignIn = null;

/** Ask for the token until it is right, once for all requests that wait. */
export function signIn() {
  pendingSignIn ??= askForToken().finally(() => (pendingSignIn = null));
  return pendingSignIn;
}

async function postToken(token) {
  await request("/session", { body: { token }, lang });
  save("session", "yes");
}

async function signOut() {
  await request("/session", { method: "DELETE", lang });
  save("session", "");
  location.reload();
}

async function askForToken() {
  const token = /^#token=(.+)$/.exec(location.hash)?.[1];
  if (token) {
    window.history.replaceState(window.history.state, "", location.pathname + location.search);
    try {
      return await postToken(decodeURIComponent(token));
    } catch {
      /* ask for it below */
    }
  }
  const dialog = $("signin");
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  return new Promise((resolve) => {
    const input = h("input", { type: "password", name: "token", autocomplete: "current-password", required: true });
    const alert = h("p", { class: "error", role: "alert" });
    const form = h("form", { onsubmit: async (event) => {
      event.preventDefault();
      try {
        await postToken(input.value.trim());
        dialog.close();
        resolve();
      } catch (error) {
        alert.textContent = error.message;
        input.select();
      }
    } }, h("label", {}, t("token"), input), h("button", { type: "submit", class: "primary" }, t("enter")), alert);
    dialog.setAttribute("aria-label", t("signin"));
    dialog.replaceChildren(h("h2", {}, t("signin")), form);
    dialog.showModal();
  });
}
