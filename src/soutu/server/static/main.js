/** From what is looked for to what is shown. */

import { Fault, ask, connect, thumbnail } from "./api.js";
import * as box from "./box.js";
import * as boxes from "./boxes.js";
import * as chips from "./chips.js";
import { $, CROSS, icon, make, plain } from "./dom.js";
import * as filters from "./filters.js";
import * as grid from "./grid.js";
import { count, label, lang, onLanguage, percent, speak, t } from "./i18n.js";
import * as picture from "./picture.js";
import { EMPTY, fromAddress, remember, show } from "./state.js";
import * as theme from "./theme.js";
import * as viewer from "./viewer.js";

const DEEP = 240; // pictures of a page far down
const SETTLED = 2500; // ms that a search stands
let state = fromAddress();
let answer = null; // the first page of what is shown
let stats = null;
let running = null; // what can be aborted
let loading = null; // the next page, on its way
let settled = 0;

function status(words, bad = false) {
  $("status").textContent = words;
  $("status").classList.toggle("fault", bad);
}

/** What keeps the page from answering, at its top, until it is over. */
function banner(code, s) {
  $("banner").textContent = code && t(code, { s });
  $("banner").hidden = !code;
}

const searching = () => Boolean(state.q.trim() || state.image !== null || state.picture);

function body(offset) {
  // Who has come far goes on.
  const k = Math.min(Math.max(offset, grid.PAGE), DEEP);
  const asked = { k, offset };
  if (state.where) asked.where = state.where;
  if (state.sure) asked.min_confidence = state.sure;
  if (state.picture) {
    const form = new FormData();
    form.append("image", state.picture.blob, "picture");
    form.append("request", JSON.stringify(asked));
    return form;
  }
  if (state.image !== null) return { ...asked, image_id: state.image };
  return state.variants ? { ...asked, text: state.q, variants: state.variants } : { ...asked, text: state.q };
}

/** Change what is looked for, and look for it. */
function look(change, replace = false) {
  const typed = box.pending();
  const all = typed === null || "q" in change ? change : { ...change, q: typed, variants: null };
  state = { ...state, ...all };
  box.taken();
  show(state, replace);
  search();
}

async function search() {
  clearTimeout(settled);
  running?.abort();
  banner("");
  loading = null;
  drawn();
  filters.fault("");
  $("nothing").hidden = true;
  if (!searching()) {
    answer = null;
    running = null;
    grid.waited();
    grid.clear();
    status("");
    return;
  }
  const mine = (running = new AbortController());
  const slow = setTimeout(() => {
    grid.waiting();
    status(t("searching"));
  }, 150);
  try {
    const found = await ask("/search", { body: body(0), lang, signal: mine.signal });
    if (mine.signal.aborted) return;
    answer = found;
    // Half a word on the way to the whole is nothing to remember.
    settled = setTimeout(() => mine === running && remember(state), SETTLED);
    shown();
    fill();
  } catch (fault) {
    if (fault.name !== "AbortError" && !mine.signal.aborted) failed(fault);
  } finally {
    clearTimeout(slow);
    if (mine === running) grid.waited();
  }
}

function shown() {
  const among = $("grid").contains(document.activeElement);
  grid.clear();
  grid.add(answer);
  if (among) grid.focus(0);
  chips.show(answer, state, (variants) => look({ variants }, false));
  told();
}

/** How much there is, or that there is nothing, and why. */
function told() {
  if (!answer) return;
  const { hits, confidence: sure, index } = answer;
  const box = $("nothing");
  box.hidden = hits.length > 0;
  if (hits.length) {
    status(t("found", { n: count(grid.all().length), all: count(index.images) }));
    return;
  }
  const unsure = sure !== null && sure < answer.min_confidence;
  const words = unsure ? t("nothing", { q: plain(state.q) }) : index.images ? t("none") : t("empty");
  status(words);
  box.replaceChildren(make("h2", {}, words), ...(unsure ? [
    make("p", {}, t("nothingWhy", { p: percent(sure) })),
    make("button", { type: "button", class: "primary", onclick: () => look({ sure: 0 }) }, t("nearest")),
  ] : []));
}

function failed(fault) {
  grid.clear();
  answer = null;
  $("said").hidden = true;
  if (!(fault instanceof Fault)) throw fault;
  status(fault.code.startsWith("where-") ? "" : fault.code.startsWith("image-") ? t("notPicture") : fault.message, true);
  if (fault.code.startsWith("where-")) filters.fault(fault.message);
}

/** The next page, once; again where it is not enough to scroll. */
function more() {
  if (!answer?.more || loading || !running) return loading ?? Promise.resolve();
  const [of, offset] = [running, grid.all().length];
  loading = ask("/search", { body: body(offset), lang, signal: of.signal }).then(
    (page) => {
      if (of !== running) return;
      loading = null;
      answer.more = page.more && page.hits.length > 0;
      if (page.hits.length) grid.add(page);
      told();
      fill();
    },
    (fault) => {
      if (of === running) loading = null;
      if (fault.name !== "AbortError") status(t("fault", { m: fault.message }), true);
    },
  );
  return loading;
}

function fill() {
  requestAnimationFrame(() => {
    if ($("more").getBoundingClientRect().top < innerHeight + 1200) more();
  });
}

/** What does not wait for the answer. */
function drawn() {
  const start = !searching();
  document.body.classList.toggle("start", start);
  $("start").hidden = !start;
  if (start || state.picture || state.image !== null) $("said").hidden = true;
  box.show(state.q);
  document.title = [state.q.trim(), "搜图 Soutu"].filter(Boolean).join(" · ");
  const like = $("like");
  like.hidden = !(state.picture || state.image !== null);
  if (!like.hidden) {
    const end = make("button", { type: "button", class: "icon", onclick: () => look({ picture: null, image: null }) }, icon(CROSS));
    label(end, t("remove"));
    const src = state.picture?.url ?? thumbnail(state.image, 256, stats?.index.generation ?? 0);
    like.replaceChildren(make("img", { src, alt: t("likeThis") }), make("span", {}, t("likeThis")), end);
  }
  filters.show(state);
  $("welcome").textContent = stats ? t("welcome", { n: count(stats.index.images) }) : "";
  $("examples").replaceChildren(...t("examples").map((words) => make("li", {}, make("button", { type: "button",
    onclick: () => look({ ...EMPTY, q: words }) }, words))));
}

const typed = (q, replace) => look({ q, image: null, picture: null, variants: null }, replace);

function listen() {
  box.listen({
    // The first letter begins a new search to go back from; the rest go on with it.
    typed: (text) => typed(text, Boolean(state.q)),
    entered: (text) => {
      if (text !== state.q || !answer) typed(text, false);
      else grid.focus(0);
      remember(state);
    },
    down: () => grid.all().length > 0 && (grid.focus(0), true),
  });
  theme.listen();
  $("home").addEventListener("click", (event) => {
    event.preventDefault();
    look({ ...EMPTY });
    box.focus();
  });
  picture.listen(async (file) => look({ ...EMPTY, where: state.where, picture: await picture.prepared(file) }));
  filters.listen((change) => look(change));
  $("past").addEventListener("click", () => boxes.history((address) => {
    history.pushState(null, "", address);
    arrived();
  }));
  $("keys").addEventListener("click", boxes.help);
  $("lang").addEventListener("click", () => speak(lang === "zh" ? "en" : "zh"));
  onLanguage(() => {
    drawn();
    if (answer) chips.show(answer, state, (variants) => look({ variants }, false));
    told();
  });
  addEventListener("popstate", arrived);
  addEventListener("scroll", fill, { passive: true });
  addEventListener("resize", fill);
  addEventListener("keydown", (event) => {
    const writing = event.target.closest?.("input, select, textarea, dialog[open]");
    if (writing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      event.preventDefault();
      box.focus();
    } else if (event.key === "?") boxes.help();
  });
}

function arrived() {
  box.taken();
  viewer.leave();
  state = fromAddress();
  search();
}

function begin() {
  connect({
    ask: boxes.signIn,
    waiting: banner,
  });
  const similar = (hit) => {
    look({ ...EMPTY, where: state.where, image: hit.id });
    scrollTo(0, 0);
  };
  grid.listen({
    open: (at) => {
      remember(state);
      viewer.open(at, answer.index.generation);
    },
    similar,
  });
  viewer.listen({ all: grid.all, more, focus: grid.focus, similar });
  listen();
  speak(lang);
  if (!searching()) box.focus();
  search();
  ask("/stats", { lang }).then((found) => {
    stats = found;
    drawn();
  }, () => {});
  performance.mark("soutu-usable");
}

begin();
