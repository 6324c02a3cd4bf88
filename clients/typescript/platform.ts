// Browser-safe. What the runtime gives: time, chance, sockets, fetch. Everything else takes it from here, so that tests
// can hand in their own.

/** The runtime, as far as a client needs it. */
export interface Platform {
  /** Calls `callback` once, after so many milliseconds. Returns what takes it back. */
  readonly startTimer: (delayMs: number, callback: () => void) => () => void;
  /** At least 0, below 1. */
  readonly random: () => number;
  /** A name that nobody else has. */
  readonly createId: () => string;
  readonly openSocket: (url: string) => WebSocket;
  readonly fetch: (url: string, init?: RequestInit) => Promise<Response>;
  /** Calls `listener` when the machine has come online, or the page is seen again. Returns what stops that. */
  readonly onWake: (listener: () => void) => () => void;
}

/** Of a browser, Bun, Deno, Node 22 or newer, or a Worker. */
export const PLATFORM: Platform = {
  startTimer: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
  createId: () => crypto.randomUUID(),
  openSocket: (url) => new WebSocket(url),
  fetch: (url, init) => fetch(url, init),
  onWake,
};

/** What a page has beside the others. */
interface Page {
  readonly addEventListener?: (type: string, listener: () => void) => void;
  readonly removeEventListener?: (type: string, listener: () => void) => void;
  readonly document?: EventTarget & { readonly visibilityState: string };
}

function onWake(listener: () => void): () => void {
  const page: Page = globalThis;
  const { document } = page;
  const onVisibility = () => {
    if (document?.visibilityState === "visible") listener();
  };
  page.addEventListener?.("online", listener);
  document?.addEventListener("visibilitychange", onVisibility);
  return () => {
    page.removeEventListener?.("online", listener);
    document?.removeEventListener("visibilitychange", onVisibility);
  };
}
