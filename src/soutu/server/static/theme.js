/** Light, dark, or as the system is. */

import { $ } from "./dom.js";
import { label, onLanguage, t } from "./i18n.js";
import { keep, kept } from "./state.js";

const NEXT = { auto: "light", light: "dark", dark: "auto" };
let theme = kept("theme");
if (!(theme in NEXT)) theme = "auto";

function show() {
  document.documentElement.dataset.theme = theme;
  label($("theme"), `${t("theme")}: ${t("themeIs")[theme]}`);
}

export function listen() {
  show();
  onLanguage(show);
  $("theme").addEventListener("click", () => {
    theme = NEXT[theme];
    keep("theme", theme);
    show();
  });
}
