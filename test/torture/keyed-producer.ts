// Appends to the compacted topic over HTTP, one request after the other, few keys again and again.

import { type KeyedJournal, KeyedSend } from "../life/keyed-sends.ts";
import { COMPACTED } from "../life/topics.ts";
import type { Load } from "./load.ts";
import { PATIENCE_MS, PLAIN_PATIENCE_MS, type Posted, post, RETRY_MS } from "./sends.ts";

const RECORDS_MAX = 5;
/** Now and then, so that steps are larger. */
const MANY_RECORDS = 150;

export interface KeyedOptions {
  readonly journal: KeyedJournal;
  /** It sends again until it is answered; else nobody may ever know. */
  readonly isIdempotent: boolean;
}

export async function produceKeyed(
  load: Load,
  name: string,
  { journal, isIdempotent }: KeyedOptions,
): Promise<void> {
  for (let sequence = 0; load.isSending; ) {
    const count = load.dice.isLucky(0.05) ? MANY_RECORDS : load.dice.between(1, RECORDS_MAX);
    const send = new KeyedSend(journal, { producer: name, count, chance: load.dice });
    const producer = isIdempotent ? { producer: { id: name, epoch: 0, sequence } } : {};
    const posted = await postUntilKnown(load, { records: send.records, ...producer }, isIdempotent);
    if (posted.kind === "answered") send.sentTo(posted.body.runs);
    if (posted.kind === "refused" || posted.kind === "later") send.refused();
    if (posted.kind === "refused") load.problems.push(`${name} was answered ${posted.code}`);
    if (posted.kind === "answered") sequence += 1;
    await load.pace();
  }
}

async function postUntilKnown(load: Load, body: object, isIdempotent: boolean): Promise<Posted> {
  const path = `/v1/topics/${COMPACTED.topic}/records`;
  for (;;) {
    const patienceMs = isIdempotent ? PATIENCE_MS : PLAIN_PATIENCE_MS;
    const posted = await post(load, { path, body, patienceMs });
    if (posted.kind === "answered") load.tally.acknowledged += 1;
    const isAgain = isIdempotent && (posted.kind === "unknown" || posted.kind === "later");
    if (!isAgain) return posted;
    await Bun.sleep(RETRY_MS); // as a client would: there is nothing to wait for
  }
}
