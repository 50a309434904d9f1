/** The state of the page. It lives in the URL, so that it can be shared and gone back to. */

/** @typedef {{text: string, weight: number, term: number}} Variant */

export const EMPTY = { q: "", image: null, picture: null, where: "", minConfidence: 0, variants: null };

/** Uploaded pictures, which no URL can hold, by their keys. */
const pictures = new Map();

export function load(name) {
  try {
    return localStorage.getItem(`soutu-${name}`);
  } catch {
    return null; // storage may be switched off
  }
}

export function save(name, value) {
  try {
    localStorage.setItem(`soutu-${name}`, value);
  } catch {
    /* then it is not saved */
  }
}

export function stateFromUrl() {
  const params = new URLSearchParams(location.search);
  const image = params.get("image");
  const minConfidence = Number(params.get("sure"));
  return {
    q: params.get("q") ?? "",
    image: /^\d{1,16}$/.test(image ?? "") ? Number(image) : null,
    picture: pictures.get(history.state?.picture) ?? null,
    where: params.get("where") ?? "",
    minConfidence: minConfidence > 0 && minConfidence <= 1 ? minConfidence : 0,
    variants: params.has("v") ? params.getAll("v").map(parseVariant).filter(Boolean) : null,
  };
}

function parseVariant(text) {
  const match = /^(\d{1,2}):(\d{1,3}(?:\.\d{1,3})?):(.+)$/s.exec(text);
  return match && Number(match[2]) > 0
    ? { term: Number(match[1]), weight: Number(match[2]), text: match[3] }
    : null;
}

export function urlOf(state) {
  const params = new URLSearchParams();
  if (state.q) params.set("q", state.q);
  if (state.image !== null) params.set("image", state.image);
  if (state.where) params.set("where", state.where);
  if (state.minConfidence) params.set("sure", state.minConfidence);
  for (const { term, weight, text } of state.variants ?? []) params.append("v", `${term}:${weight}:${text}`);
  const query = params.toString();
  return query ? `/?${query}` : "/";
}

/** Put `state` into the URL; `replace` where it continues what is there (typing). */
export function pushState(state, replace) {
  let entry = null;
  if (state.picture) {
    entry = { picture: state.picture.key };
    pictures.set(state.picture.key, state.picture);
  }
  const url = urlOf(state);
  const same = url === location.pathname + location.search && entry?.picture === history.state?.picture;
  history[replace || same ? "replaceState" : "pushState"](entry, "", url);
}

const MAX_HISTORY = 50;

export function searchHistory() {
  try {
    const urls = JSON.parse(load("history") ?? "[]");
    return Array.isArray(urls) ? urls.filter((url) => typeof url === "string").slice(0, MAX_HISTORY) : [];
  } catch {
    return [];
  }
}

export function remember(state) {
  if (!state.q.trim() || state.picture) return;
  const url = urlOf({ ...state, variants: null });
  save("history", JSON.stringify([url, ...searchHistory().filter((other) => other !== url)].slice(0, MAX_HISTORY)));
}

export const clearHistory = () => save("history", "[]");
