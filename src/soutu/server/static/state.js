/** What is being looked at. It lives in the address, so that it can be shared and gone back to. */

/** @typedef {{text: string, weight: number, term: number}} Chosen */

export const EMPTY = { q: "", image: null, picture: null, where: "", sure: 0, variants: null };

/** Uploaded pictures cannot be part of an address; those of this visit are kept beside it. */
const pictures = new Map();

export function kept(name) {
  try {
    return localStorage.getItem(`soutu-${name}`);
  } catch {
    return null; // storage may be switched off
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(`soutu-${name}`, value);
  } catch {
    /* then it is not remembered */
  }
}

export function fromAddress() {
  const said = new URLSearchParams(location.search);
  const image = said.get("image");
  const sure = Number(said.get("sure"));
  return {
    q: said.get("q") ?? "",
    image: /^\d{1,16}$/.test(image ?? "") ? Number(image) : null,
    picture: pictures.get(history.state?.picture) ?? null,
    where: said.get("where") ?? "",
    sure: sure > 0 && sure <= 1 ? sure : 0,
    variants: said.has("v") ? said.getAll("v").map(fromText).filter(Boolean) : null,
  };
}

function fromText(text) {
  const found = /^(\d{1,2}):(\d{1,3}(?:\.\d{1,3})?):(.+)$/s.exec(text);
  return found && Number(found[2]) > 0
    ? { term: Number(found[1]), weight: Number(found[2]), text: found[3] }
    : null;
}

export function toAddress(state) {
  const said = new URLSearchParams();
  if (state.q) said.set("q", state.q);
  if (state.image !== null) said.set("image", state.image);
  if (state.where) said.set("where", state.where);
  if (state.sure) said.set("sure", state.sure);
  for (const one of state.variants ?? []) said.append("v", `${one.term}:${one.weight}:${one.text}`);
  const text = said.toString();
  return text ? `/?${text}` : "/";
}

/** Put `state` into the address; `replace` where it only goes on what is there (typing). */
export function show(state, replace) {
  let known = null;
  if (state.picture) {
    known = { picture: state.picture.key };
    pictures.set(state.picture.key, state.picture);
  }
  const address = toAddress(state);
  const same = address === location.pathname + location.search && known?.picture === history.state?.picture;
  history[replace || same ? "replaceState" : "pushState"](known, "", address);
}

const MOST = 50;

export function past() {
  try {
    const found = JSON.parse(kept("history") ?? "[]");
    return Array.isArray(found) ? found.filter((one) => typeof one === "string").slice(0, MOST) : [];
  } catch {
    return [];
  }
}

export function remember(state) {
  if (!state.q.trim()) return;
  const address = toAddress({ ...state, variants: null });
  keep("history", JSON.stringify([address, ...past().filter((one) => one !== address)].slice(0, MOST)));
}

export const forget = () => keep("history", "[]");
