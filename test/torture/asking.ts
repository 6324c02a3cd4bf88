// Requests that may be done twice, for those that manage topics and groups.

import type { Load } from "./load.ts";

const RETRY_MS = 20;
const PATIENCE_MS = 3_000;

export interface Call {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
  /** Statuses that mean it is done. */
  readonly wanted: readonly number[];
}

/** Again and again until it is done, or the load ends; what is refused for good is a problem. */
export async function askUntilDone(load: Load, call: Call): Promise<void> {
  while (load.isSending) {
    const status = await ask(load, call);
    if (call.wanted.includes(status)) return;
    if (status > 0 && status < 500) {
      load.problems.push(`${call.method} ${call.path} was answered ${status}`);
      return;
    }
    await Bun.sleep(RETRY_MS); // as a client would: there is nothing to wait for
  }
}

/** Once. 0: there was no answer. */
export async function ask(load: Load, { method, path, body }: Call): Promise<number> {
  const { url } = await load.stage.pick();
  load.tally.asked();
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const text = body === undefined ? {} : { body: JSON.stringify(body) };
    const response = await fetch(url + path, { method, keepalive: false, signal, ...text });
    await response.text();
    load.tally.ended("answered");
    return response.status;
  } catch (error) {
    const isLate = error instanceof DOMException && error.name === "TimeoutError";
    load.tally.ended(isLate ? "left" : "cut");
    return 0;
  }
}
