/** Send requests to the server: one kind of error, sign-in, retries while it is busy. */

export const BASE = "/api/v1";
const RETRY_STATUSES = [429, 503];
const MAX_RETRIES = 20;
const MAX_RETRY_SECONDS = 30;

/** An error that the server answered, in its own words. */
export class ApiError extends Error {
  constructor(error) {
    super(error.message);
    this.code = error.code;
    this.status = error.status;
  }
}

let signIn = async () => {};
let onWaiting = () => {};

/** Set what is called to sign in, and with what is being waited for. */
export function connect(handlers) {
  signIn = handlers.signIn;
  onWaiting = handlers.onWaiting;
}

/** Resolve after `ms`, or as soon as there is a network again. */
const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    addEventListener("online", resolve, { once: true });
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    });
  });

/** Fetch the JSON at `path`; retry while the server is away or busy, until `signal` aborts. */
export async function request(path, { body, lang, signal, method = "GET" } = {}) {
  const options = { method, signal, headers: { "Accept-Language": lang ?? "en" } };
  if (body instanceof FormData) Object.assign(options, { method: "POST", body });
  else if (body) {
    options.headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  for (let attempt = 0; ; attempt++) {
    let response;
    try {
      response = await fetch(BASE + path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      onWaiting(navigator.onLine ? "gone" : "offline");
      await pause(Math.min(500 * 2 ** attempt, 8000), signal);
      continue;
    }
    if (attempt) onWaiting("");
    if (response.ok) return response.status === 204 ? null : response.json();
    const body = await response.json().catch(() => null);
    const error = body?.error ?? { status: response.status, code: "", message: response.statusText };
    if (response.status === 401 && path !== "/session") {
      await signIn(error.message);
    } else if (RETRY_STATUSES.includes(response.status) && response.headers.has("Retry-After") && attempt < MAX_RETRIES) {
      const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, MAX_RETRY_SECONDS);
      onWaiting(error.code === "server-starting" ? "loading" : "busy", seconds);
      await pause(seconds * 1000, signal);
    } else throw new ApiError(error);
  }
}

export const thumbnailUrl = (id, side, generation) => `${BASE}/thumbnails/${id}?size=${side}&v=${generation}`;
export const imageUrl = (id) => `${BASE}/images/${id}`;
