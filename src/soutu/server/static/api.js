/** Asking the server: one fault shape, signing in, waiting where it is busy. */

export const BASE = "/api/v1";
const AGAIN = [429, 503];

/** What the server refuses, in its own words. */
export class Fault extends Error {
  constructor(error) {
    super(error.message);
    this.code = error.code;
    this.status = error.status;
  }
}

let signIn = async () => {};
let told = () => {};

/** `ask` is called where a token is needed, `waiting` with what is being waited for, "" for nothing. */
export function connect({ ask, waiting }) {
  signIn = ask;
  told = waiting;
}

/** Resolved after `ms`, or as soon as there is a network again. */
const pause = (ms, signal) =>
  new Promise((done, fail) => {
    const timer = setTimeout(done, ms);
    addEventListener("online", done, { once: true });
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      fail(new DOMException("", "AbortError"));
    });
  });

/** JSON of `path`; goes on asking while the server is away or busy, until `signal` ends it. */
export async function ask(path, { body, lang, signal } = {}) {
  const sent = { signal, headers: { "Accept-Language": lang ?? "en" } };
  if (body instanceof FormData) Object.assign(sent, { method: "POST", body });
  else if (body) {
    sent.headers["Content-Type"] = "application/json";
    Object.assign(sent, { method: "POST", body: JSON.stringify(body) });
  }
  for (let tries = 0; ; tries++) {
    let answer;
    try {
      answer = await fetch(BASE + path, sent);
    } catch (fault) {
      if (fault.name === "AbortError") throw fault;
      told(navigator.onLine ? "gone" : "offline");
      await pause(Math.min(500 * 2 ** tries, 8000), signal);
      continue;
    }
    if (tries) told("");
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    const said = await answer.json().catch(() => null);
    const error = said?.error ?? { status: answer.status, code: "", message: answer.statusText };
    if (answer.status === 401 && path !== "/session") {
      await signIn(error.message);
    } else if (AGAIN.includes(answer.status) && answer.headers.has("Retry-After") && tries < 20) {
      const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 1, 30);
      told(error.code === "server-starting" ? "loading" : "busy", seconds);
      await pause(seconds * 1000, signal);
    } else throw new Fault(error);
  }
}

export const thumbnail = (id, side, generation) => `${BASE}/thumbnails/${id}?size=${side}&v=${generation}`;
export const image = (id) => `${BASE}/images/${id}`;
