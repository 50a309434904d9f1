/** The page: from its state to a search, and from the answer to what is shown. */

import { ApiError, connect, request, thumbnailUrl } from "./api.js";
import * as searchbox from "./searchbox.js";
import * as dialogs from "./dialogs.js";
import * as chips from "./chips.js";
import { $, button, CROSS, h, iconButton, label, plain } from "./dom.js";
import * as filters from "./filters.js";
import * as grid from "./grid.js";
import { formatCount, lang, onLanguage, percent, setLanguage, t } from "./i18n.js";
import * as upload from "./upload.js";
import { EMPTY, load, pushState, remember, save, stateFromUrl, urlOf } from "./state.js";
import * as viewer from "./viewer.js";

const MAX_PAGE_SIZE = 240; // hits of a page far down
const MAX_COUNT = 1000; // hits that are loaded again at once
const REMEMBER_AFTER = 2500; // ms that a search stays before it goes into the history
const NEXT_THEME = { auto: "light", light: "dark", dark: "auto" };
let state = stateFromUrl();
let answer = null; // the first page of what is shown
let stats = null;
let running = null; // AbortController of the search
let loading = null; // Promise of the next page
let rememberTimer = 0;
let restore = history.state; // where the page was scrolled to, in a search that is gone back to
let theme = load("theme");
if (!(theme in NEXT_THEME)) theme = "auto";

function setStatus(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

/** Show at the top what the page is waiting for; "" for nothing. */
function setBanner(code, s) {
  $("banner").textContent = code && t(code, { s });
  $("banner").hidden = !code;
}

/** The picture that the address names; null for none. */
const pictureId = () => (/^#p=\d{1,16}$/.test(location.hash) ? Number(location.hash.slice(3)) : null);

const hasPicture = () => Boolean(state.picture || state.image !== null);
const hasQuery = () => Boolean(state.q.trim() || hasPicture());
const isStart = () => !hasQuery() && !state.where;

function requestBody(offset, k) {
  const params = { k, offset };
  if (state.where) params.where = state.where;
  if (state.minConfidence) params.min_confidence = state.minConfidence;
  if (state.variants) params.variants = state.variants;
  const words = state.q.trim() ? [{ query: state.q }] : [];
  if (state.picture) {
    if (words.length) params.terms = words;
    const form = new FormData();
    form.append("image", state.picture.blob, "picture");
    form.append("request", JSON.stringify(params));
    return form;
  }
  return state.image === null ? { ...params, text: state.q } : { ...params, terms: [{ image_id: state.image }, ...words] };
}

/** Get hits from `offset` on: of the search, or of the pictures that the filter admits. */
async function fetchHits(offset, signal, count = offset) {
  const options = { lang, signal };
  // Whoever has scrolled far will scroll on.
  const k = Math.min(Math.max(count, grid.PAGE_SIZE), offset ? MAX_PAGE_SIZE : MAX_COUNT);
  if (hasQuery()) return request("/search", { ...options, body: requestBody(offset, k) });
  const params = new URLSearchParams({ where: state.where, k });
  if (offset) params.set("cursor", answer.cursor);
  const { images, ...page } = await request(`/images?${params}`, options);
  return { ...page, more: Boolean(page.cursor), hits: images.map((image, n) => ({ ...image, rank: offset + n + 1, confidence: null })) };
}

/** Change the state, with what was typed meanwhile, and search. */
function setState(change, replace = false) {
  const typed = searchbox.pendingText();
  const changes = typed === null || "q" in change ? change : { ...change, q: typed, variants: null };
  state = { ...state, ...changes };
  searchbox.commitInput();
  clearTimeout(positionTimer);
  restore = null;
  pushState(state, replace);
  search();
}

let positionTimer = 0;

/** Keep with the entry of the history where the page is scrolled to. */
function savePosition() {
  clearTimeout(positionTimer);
  positionTimer = setTimeout(() => {
    const count = grid.all().length;
    if (count) history.replaceState({ ...history.state, count, y: scrollY }, "");
  }, 200);
}

/** Open the picture that the address names, or close the one that it no longer names. */
function syncViewer() {
  const index = grid.all().findIndex((hit) => hit.id === pictureId());
  if (index >= 0) viewer.open(index, answer.index.generation);
  else viewer.close();
}

async function search() {
  clearTimeout(rememberTimer);
  running?.abort();
  setBanner("");
  loading = null;
  renderChrome();
  filters.showError("");
  $("empty").hidden = true;
  if (isStart()) {
    answer = null;
    running = null;
    grid.endLoading();
    grid.clear();
    setStatus("");
    return;
  }
  const controller = (running = new AbortController());
  const slow = setTimeout(() => {
    grid.showLoading();
    setStatus(t("searching"));
  }, 150);
  try {
    const result = await fetchHits(0, controller.signal, restore?.count ?? 0);
    if (controller.signal.aborted) return;
    answer = result;
    // What was only typed on the way to a query is not remembered.
    rememberTimer = setTimeout(() => controller === running && remember(state), REMEMBER_AFTER);
    renderResults();
    if (restore?.y) scrollTo(0, restore.y);
    restore = null;
    syncViewer();
    loadMoreIfNear();
  } catch (error) {
    if (error.name !== "AbortError" && !controller.signal.aborted) renderError(error);
  } finally {
    clearTimeout(slow);
    if (controller === running) grid.endLoading();
  }
}

function renderResults() {
  const hadFocus = $("grid").contains(document.activeElement);
  grid.clear();
  grid.add(answer);
  if (hadFocus) grid.focus(0);
  renderChips();
  renderStatus();
}

function renderChips() {
  if (answer?.query) chips.render(answer, state, (variants) => setState({ variants }, false));
  else $("expansion").hidden = true;
}

function renderStatus() {
  if (!answer) return;
  const { hits, confidence, index, total } = answer;
  const empty = $("empty");
  empty.hidden = hits.length > 0;
  if (hits.length) {
    setStatus(t(total ? "browsed" : "found", { n: formatCount(grid.all().length), all: formatCount(total ?? index.images) }));
    return;
  }
  const unlikely = confidence !== null && confidence < answer.min_confidence;
  const text = unlikely ? t("nothing", { q: plain(state.q) }) : index.images ? t("none") : t("empty");
  setStatus(text);
  empty.replaceChildren(h("h2", {}, text), ...(unlikely ? [
    h("p", {}, t("nothingWhy", { p: percent(confidence) })),
    button({ class: "primary", onclick: () => setState({ minConfidence: 0 }) }, t("nearest")),
  ] : state.where ? [
    answer.suggestions.length > 0 && h("p", {}, t("suggestions"), ...answer.suggestions.flatMap(suggestion)),
    button({ class: "primary", onclick: () => setState({ where: "" }) }, t("clearFilter")),
  ].filter(Boolean) : []));
}

function suggestion(condition, index) {
  const where = filters.replaced(state.where, condition);
  return [index > 0 && " · ", where ? button({ dir: "auto", onclick: () => setState({ where }) }, plain(condition)) : plain(condition)];
}

function renderError(error) {
  grid.clear();
  answer = null;
  $("expansion").hidden = true;
  if (!(error instanceof ApiError)) throw error;
  if (error.code.startsWith("image-")) { // what is typed next is searched for without it
    state.picture = null;
    $("like").hidden = true;
  }
  setStatus(error.code.startsWith("where-") ? "" : error.code.startsWith("image-") ? t("notPicture") : error.message, true);
  if (error.code.startsWith("where-")) filters.showError(error.message);
}

/** Load the next page once; again where it is not enough to scroll. */
function loadMore() {
  if (!answer?.more || loading || !running) return loading ?? Promise.resolve();
  const [controller, offset] = [running, grid.all().length];
  loading = fetchHits(offset, controller.signal).then(
    (page) => {
      if (controller !== running) return;
      loading = null;
      answer.more = page.more && page.hits.length > 0;
      answer.cursor = page.cursor;
      if (page.hits.length) grid.add(page);
      renderStatus();
      loadMoreIfNear();
    },
    (error) => {
      if (controller === running) loading = null;
      if (error.name !== "AbortError") setStatus(t("error", { m: error.message }), true);
    },
  );
  return loading;
}

function loadMoreIfNear() {
  requestAnimationFrame(() => {
    if ($("more").getBoundingClientRect().top < innerHeight + 1200) loadMore();
  });
}

function renderChrome() {
  const start = isStart();
  document.body.classList.toggle("start", start);
  $("start").hidden = !start;
  if (start) $("expansion").hidden = true;
  searchbox.render(state.q);
  document.title = [state.q.trim() || state.where, "搜图 Soutu"].filter(Boolean).join(" · ");
  const chip = $("like");
  chip.hidden = !hasPicture();
  if (!chip.hidden) {
    const remove = iconButton(CROSS, t("remove"), () => setState({ picture: null, image: null, variants: null }));
    const src = state.picture?.url ?? thumbnailUrl(state.image, 256, stats?.index.generation ?? 0);
    chip.replaceChildren(h("img", { src, alt: t("likeThis") }), h("span", {}, t("likeThis")), remove);
  }
  filters.render(state);
  $("welcome").textContent = stats ? t("welcome", { n: formatCount(stats.index.images) }) : "";
  $("examples").replaceChildren(...t("examples").map((text) => h("li", {}, button({
    onclick: () => setState({ ...EMPTY, q: text }) }, text))));
}

function renderTheme() {
  document.documentElement.dataset.theme = theme;
  label($("theme"), `${t("theme")}: ${t("themeIs")[theme]}`);
}

const searchText = (q, replace) => setState({ q, variants: null }, replace);

function listen() {
  searchbox.listen({
    // The first letter begins a new search to go back from; the rest go on with it.
    onType: (text) => searchText(text, Boolean(state.q)),
    onEnter: (text) => {
      if (text !== state.q || !answer) searchText(text, false);
      else grid.focus(0);
      remember(state);
    },
    onDown: () => grid.all().length > 0 && (grid.focus(0), true),
  });
  $("theme").addEventListener("click", () => {
    theme = NEXT_THEME[theme];
    save("theme", theme);
    renderTheme();
  });
  $("home").addEventListener("click", (event) => {
    event.preventDefault();
    setState({ ...EMPTY });
    searchbox.focus();
  });
  upload.listen(async (file) => {
    const picture = await upload.prepare(file);
    setState({ picture, image: null, variants: null });
  });
  filters.listen((change) => setState(change));
  $("history").addEventListener("click", () => dialogs.history((url) => {
    history.pushState(null, "", url);
    onPopState();
  }));
  $("keys").addEventListener("click", dialogs.help);
  $("lang").addEventListener("click", () => setLanguage(lang === "zh" ? "en" : "zh"));
  onLanguage(() => {
    renderTheme();
    renderChrome();
    renderChips();
    renderStatus();
  });
  addEventListener("popstate", onPopState);
  addEventListener("scroll", loadMoreIfNear, { passive: true });
  addEventListener("scroll", savePosition, { passive: true });
  addEventListener("resize", loadMoreIfNear);
  addEventListener("keydown", (event) => {
    const editing = event.target.closest?.("input, select, textarea, dialog[open]");
    if (editing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      event.preventDefault();
      searchbox.focus();
    } else if (event.key === "?") dialogs.help();
  });
}

function onPopState() {
  searchbox.commitInput();
  const next = stateFromUrl();
  if (answer && urlOf(next) === urlOf(state) && next.picture === state.picture) {
    syncViewer();
    return;
  }
  viewer.leave();
  state = next;
  restore = history.state;
  search();
}

function start() {
  connect({
    signIn: dialogs.signIn,
    onWaiting: setBanner,
  });
  const similar = (hit) => {
    setState({ ...EMPTY, where: state.where, image: hit.id });
    scrollTo(0, 0);
  };
  grid.listen({
    open: (index) => {
      remember(state);
      history.pushState({ ...history.state, viewer: true }, "", `#p=${grid.all()[index].id}`);
      viewer.open(index, answer.index.generation);
    },
    similar,
  });
  viewer.listen({
    all: grid.all,
    more: loadMore,
    focus: grid.focus,
    similar,
    moved: (hit) => history.replaceState(history.state, "", `#p=${hit.id}`),
    closed: () => {
      if (history.state?.viewer) history.back();
      else if (pictureId() !== null) history.replaceState(history.state, "", location.pathname + location.search);
    },
  });
  history.scrollRestoration = "manual";
  listen();
  setLanguage(lang);
  if (isStart()) searchbox.focus();
  search();
  request("/stats", { lang }).then((body) => {
    stats = body;
    renderChrome();
  }, () => {});
  performance.mark("soutu-usable");
}

start();
