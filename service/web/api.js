// The service as this page sees it. Paths are relative, so that it works behind a prefix too.

import { readEvents } from "./sse.js";

/** In this page's memory alone: gone with a reload, and never in a storage, an address or a cookie. */
export const keys = { api: "", admin: "" };

/** What went wrong, in a title and a sentence. `status` is 0 where no answer came at all. */
export class Problem extends Error {
  constructor({ title, detail, status = 0, code = "", retryAfterS = null }) {
    super(detail);
    Object.assign(this, { title, detail, status, code, retryAfterS });
  }
}

const UNREACHABLE = {
  title: "No answer.",
  detail: "The service cannot be reached. Is it still running, and is the network there?",
  code: "unreachable",
};
const CUT = {
  title: "Connection lost.",
  detail: "It was cut before the answer was complete. What had arrived by then is still shown.",
  code: "cut",
};

/** JSON of a GET. */
export async function get(path, signal) {
  return (await send(path, { signal })).json();
}

/** A photograph of the page's own. */
export async function getPhoto(path) {
  return (await send(path, {})).blob();
}

/** The metrics as Prometheus would read them. */
export async function metricsText() {
  return (await send("metrics", {})).text();
}

/** Set the service's budget, as the admin; what is in force then. */
export async function putBudget(request) {
  const headers = { "Content-Type": "application/json" };
  return (await send("budget", { method: "PUT", headers, body: JSON.stringify(request) }, keys.admin || keys.api)).json();
}

/** Events of a photo (a Blob) on its way. `query`: parameters of POST /classify. */
export function classify(photo, query, signal) {
  const headers = { "Content-Type": "application/octet-stream" };
  return follow(`classify?${new URLSearchParams(query)}`, { method: "POST", headers, body: photo, signal });
}

/** Events of an answer that goes on to the next exit. */
export function refine(id, signal) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ to: "next" });
  return follow(`classify/${encodeURIComponent(id)}/refine`, { method: "POST", headers, body, signal });
}

async function* follow(path, options) {
  const headers = { ...options.headers, Accept: "text/event-stream" };
  const answer = await send(path, { ...options, headers });
  try {
    for await (const event of readEvents(answer.body)) {
      if (event.name === "error") throw problemOf(event.data.error, event.data.error.status, null);
      yield event;
      if (event.name === "done") return;
    }
  } catch (error) {
    if (error instanceof Problem || options.signal?.aborted) throw error;
    throw new Problem(CUT);
  }
  throw new Problem(CUT);
}

async function send(path, options, key = keys.api || keys.admin) {
  const headers = { Accept: "application/json", ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(UNREACHABLE);
  }
  if (answer.ok) return answer;
  const document = await answer.json().catch(() => ({}));
  throw problemOf(document, answer.status, answer.headers.get("Retry-After"));
}

function problemOf(document, status, retryAfter) {
  return new Problem({
    title: `${document.title ?? `Status ${status}`}.`,
    detail: sentence(document.detail ?? "The service gave no reason."),
    status,
    code: document.code,
    retryAfterS: retryAfter === null ? null : Number(retryAfter) || null,
  });
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
