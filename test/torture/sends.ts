// One produce or transaction, from the side of whoever sends it.

import type { AckEntry } from "../../src/protocol/frames.ts";
import type { SendEvent, SentEvent } from "../proof/history.ts";
import type { Load } from "./load.ts";

export interface Send {
  readonly name: string;
  readonly producer: string;
  /** Undefined: it is never sent again. */
  readonly sequence: number | undefined;
  readonly appends: SendEvent["appends"];
  readonly commits?: { readonly group: string; readonly offsets: readonly AckEntry[] } | undefined;
}

export type Outcome = { readonly kind: "sent"; readonly runs: SentEvent["runs"] } | NotSent;

type NotSent =
  /** Refused: nothing was written. `later`: the same may be taken another time. */
  { readonly kind: "refused" | "later"; readonly code: string } | { readonly kind: "unknown" };

/** An impatient client: it asks elsewhere when a server stands still. */
export const PATIENCE_MS = 3_000;
/** Who cannot ask twice waits longer than any deadline of the server. */
export const PLAIN_PATIENCE_MS = 25_000;
export const RETRY_MS = 20;
const LATER: ReadonlySet<string> = new Set(["unavailable", "storage_full", "rate_limited"]);
/** What may become of a transaction whose worker has lost its partition. */
const FENCED: ReadonlySet<string> = new Set(["fenced_generation", "conflict"]);

export function eventOf({ name, producer, sequence, appends, commits }: Send): SendEvent {
  const isIdempotent = sequence !== undefined;
  return { type: "send", send: name, producer, isIdempotent, appends, ...(commits && { commits }) };
}

/** As a frame of the socket. */
export function frameOf(send: Send): Readonly<Record<string, unknown>> {
  const [append] = send.appends;
  const isProduce = send.appends.length === 1 && !send.commits;
  const body = isProduce ? { topic: append?.topic, ...batchOf(send, append) } : transactionOf(send);
  return { type: isProduce ? "produce" : "transact", id: send.name, ...body };
}

function requestOf(send: Send): { readonly path: string; readonly body: unknown } {
  const [append] = send.appends;
  if (send.appends.length !== 1 || send.commits || !append)
    return { path: "/v1/transactions", body: transactionOf(send) };
  return { path: `/v1/topics/${append.topic}/records`, body: batchOf(send, append) };
}

function batchOf(send: Send, append: Send["appends"][number] | undefined) {
  return { records: recordsOf(append?.values ?? []), ...producerOf(send) };
}

function transactionOf(send: Send) {
  const appends = send.appends.map(({ topic, values }) => ({ topic, records: recordsOf(values) }));
  return { appends, ...producerOf(send), ...(send.commits && { commits: send.commits }) };
}

/** Keys spread them over all partitions. */
function recordsOf(values: readonly string[]) {
  return values.map((value, index) => ({ key: `k${value.length % 7}.${index % 5}`, value }));
}

function producerOf({ producer, sequence }: Send) {
  return sequence === undefined ? {} : { producer: { id: producer, epoch: 0, sequence } };
}

export function outcomeOfCode(code: string): NotSent {
  if (code === "outcome_unknown") return { kind: "unknown" };
  return { kind: LATER.has(code) ? "later" : "refused", code };
}

/** The runs of a produce do not name their topic. */
export function runsOf(send: Send, runs: readonly Record<string, unknown>[]): SentEvent["runs"] {
  const topic = send.appends[0]?.topic ?? "";
  return runs.map((run) => ({ topic, ...run })) as unknown as SentEvent["runs"]; // as PROTOCOL.md says, and the checker judges
}

/** Sends it over HTTP, once, or with its sequence until it is answered. Its `send` is in the history already. */
export async function sendOverHttp(load: Load, send: Send): Promise<Outcome> {
  let wasUnknown = false;
  for (;;) {
    const outcome = await attempt(load, send);
    await load.recorder.opened();
    const isAgain = send.sequence !== undefined && (outcome.kind === "unknown" || outcome.kind === "later");
    if (!isAgain) {
      conclude(load, send, outcome, wasUnknown || outcome.kind === "unknown");
      return outcome;
    }
    wasUnknown ||= outcome.kind === "unknown";
    await Bun.sleep(RETRY_MS); // as a client would: there is nothing to wait for
  }
}

/** Writes down what became of it. `wasUnknown`: for a while, or for ever. */
export function conclude(load: Load, send: Send, outcome: Outcome, wasUnknown: boolean): void {
  const { recorder, tally, problems } = load;
  if (wasUnknown) tally.unknown += 1;
  if (wasUnknown && outcome.kind !== "unknown") tally.settled += 1;
  if (outcome.kind === "unknown") return;
  if (outcome.kind === "sent") {
    tally.acknowledged += 1;
    recorder.write({ type: "sent", send: send.name, runs: outcome.runs });
    return;
  }
  tally.refused += 1;
  recorder.write({ type: "not-sent", send: send.name, code: outcome.code });
  const isExpected = outcome.kind === "later" || (send.commits && FENCED.has(outcome.code));
  if (!isExpected) problems.push(`${send.name}, sequence ${send.sequence}, was answered ${outcome.code}`);
}

async function attempt(load: Load, send: Send): Promise<Outcome> {
  const patienceMs = send.sequence === undefined ? PLAIN_PATIENCE_MS : PATIENCE_MS;
  const posted = await post(load, { ...requestOf(send), patienceMs });
  return posted.kind === "answered" ? { kind: "sent", runs: runsOf(send, posted.body.runs) } : posted;
}

export type Posted =
  // biome-ignore lint/suspicious/noExplicitAny: what the answer must be, whoever has asked says
  { readonly kind: "answered"; readonly body: any } | NotSent;

/** Once, to whichever server is there. */
export async function post(
  load: Load,
  { path, body, patienceMs }: { readonly path: string; readonly body: unknown; readonly patienceMs: number },
): Promise<Posted> {
  const { url } = await load.stage.pick();
  load.tally.asked();
  try {
    const response = await fetch(url + path, {
      method: "POST",
      body: JSON.stringify(body),
      keepalive: false, // each is a connection of its own, which can be cut
      signal: AbortSignal.timeout(patienceMs),
    });
    const answer = JSON.parse(await response.text());
    load.tally.ended("answered");
    if (response.ok) return { kind: "answered", body: answer };
    load.tally.code(answer.code);
    return outcomeOfCode(answer.code);
  } catch (error) {
    const isLate = error instanceof DOMException && error.name === "TimeoutError";
    load.tally.ended(isLate ? "left" : "cut");
    return { kind: "unknown" };
  }
}
