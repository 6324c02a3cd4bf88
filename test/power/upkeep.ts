// Retention and compaction while the power goes. Both have more to do than a few steps when it begins, and producers give
// them more all the time; somebody reads until the server is gone, so that what had gone is known to stay away.

import { setTimeout as sleep } from "node:timers/promises";
import { findCompactionFaults } from "../life/compaction-rules.ts";
import { lookOverHttp } from "../life/http-look.ts";
import { KeyedJournal, KeyedSend } from "../life/keyed-sends.ts";
import type { Look } from "../life/looks.ts";
import { findRetentionFaults } from "../life/retention-rules.ts";
import { COMPACTED, FRESH, LIMITS, NEWEST, putTopic } from "../life/topics.ts";
import { HttpClient } from "../support/http-client.ts";
import { type Journal, valueText } from "./journal.ts";
import { HttpProducer } from "./producers.ts";

/** More than a few steps. */
const BACKLOG = 6_000;
const RECORDS_MAX = 6;
const VALUE_BYTES_MAX = 200;
const LOOK_EVERY_MS = 20;
/** Behind an sqld the lease of the server that was there before has to run out first. */
const REST_MS = 30_000;
const LOOK_AT_REST_MS = 100;

export class UpkeepUsers {
  readonly #journal: Journal;
  readonly #keyed = new KeyedJournal();
  readonly #looks: Look[] = [];
  readonly #retained: readonly HttpProducer[];
  readonly #compacted: readonly KeyedProducer[];
  readonly #random: () => number;

  constructor(journal: Journal, random: () => number) {
    this.#journal = journal;
    this.#random = random;
    this.#retained = [NEWEST, FRESH].map(
      ({ topic, partitionCount }) =>
        new HttpProducer(journal, {
          ...{ id: topic, topic, partitionCount, isIdempotent: true, random },
          ...{ recordsMax: RECORDS_MAX, valueBytesMax: VALUE_BYTES_MAX },
        }),
    );
    this.#compacted = [true, false].map(
      (isIdempotent) => new KeyedProducer(this.#keyed, { isIdempotent, random }),
    );
  }

  /** The topics keep everything until it begins. */
  async prepare(url: string): Promise<void> {
    for (const { topic, partitionCount } of [NEWEST, FRESH, COMPACTED])
      await putTopic(url, topic, { partitionCount });
    await this.#fillNewest(url);
    const chance = { random: this.#random };
    const send = new KeyedSend(this.#keyed, { producer: "backlog", count: BACKLOG, chance });
    send.sentTo(await produce(url, COMPACTED.topic, { records: send.records }));
  }

  /** Resolves when the server is gone. */
  async run(url: string): Promise<void> {
    const { retention } = FRESH;
    const { cleanup, compaction } = COMPACTED;
    const working = [...this.#retained, ...this.#compacted].map((producer) => producer.runUntilCut(url));
    const set = Promise.all([
      putTopic(url, NEWEST.topic, { retention: NEWEST.retention }),
      putTopic(url, FRESH.topic, { retention }),
      putTopic(url, COMPACTED.topic, { cleanup, compaction }),
    ]);
    // The power may have gone first.
    await Promise.all([...working, this.#lookUntilCut(url), set.catch(() => undefined)]);
  }

  /** On what the power cut has left: sends again what was not answered, lets upkeep finish, and judges. */
  async finish(url: string): Promise<readonly string[]> {
    await putTopic(url, NEWEST.topic, { retention: NEWEST.retention });
    await putTopic(url, FRESH.topic, { retention: FRESH.retention });
    await putTopic(url, COMPACTED.topic, { cleanup: COMPACTED.cleanup, compaction: COMPACTED.compaction });
    this.#looks.push(await lookOverHttp(url));
    const failures: string[] = [];
    for (const producer of [...this.#retained, ...this.#compacted])
      await producer.finish(url).catch((error: unknown) => failures.push(String(error)));
    return [...failures, ...(await this.#untilAtRest(url))];
  }

  async #fillNewest(url: string): Promise<void> {
    const { topic } = NEWEST;
    const values = Array.from({ length: BACKLOG }, () => this.#journal.name(topic));
    const send = this.#journal.send({ producer: topic, isIdempotent: false, appends: [{ topic, values }] });
    const records = values.map((value, index) => ({ value: valueText(value, 20), partition: index % 2 }));
    const runs = await produce(url, topic, { records });
    this.#journal.sent(
      send,
      runs.map((run) => ({ topic, ...run })),
    );
  }

  async #lookUntilCut(url: string): Promise<void> {
    for (;;) {
      const look = await lookOverHttp(url).catch(() => undefined); // the power has gone
      if (!look) return;
      this.#looks.push(look);
      await sleep(LOOK_EVERY_MS);
    }
  }

  /** What is wrong when everything is done, or when there was time enough for it. */
  async #untilAtRest(url: string): Promise<readonly string[]> {
    const lateAtMs = Date.now() + REST_MS;
    for (;;) {
      const looks = [...this.#looks, await lookOverHttp(url, { isAtRest: true })];
      const { sent, problems } = this.#keyed;
      const faults = [
        ...problems,
        ...findRetentionFaults(looks, LIMITS),
        ...findCompactionFaults({ sent, looks, tombstoneMs: COMPACTED.compaction.tombstoneMs }),
      ];
      if (faults.length === 0 || Date.now() > lateAtMs) return faults;
      await sleep(LOOK_AT_REST_MS);
    }
  }
}

type Runs = readonly { readonly partition: number; readonly offset: number; readonly count: number }[];

async function produce(url: string, topic: string, request: object): Promise<Runs> {
  const { status, body } = await new HttpClient({ url }).call("POST", `/v1/topics/${topic}/records`, request);
  if (status !== 200) throw new Error(`${topic} was not filled: ${JSON.stringify(body)}`);
  return body.runs;
}

/** One request after the other. With sequences it sends again, after the power is back, what was not answered. */
class KeyedProducer {
  readonly #journal: KeyedJournal;
  readonly #random: () => number;
  readonly #isIdempotent: boolean;
  #sequence = 0;
  #open: KeyedSend | undefined;

  constructor(
    journal: KeyedJournal,
    { isIdempotent, random }: { isIdempotent: boolean; random: () => number },
  ) {
    this.#journal = journal;
    this.#random = random;
    this.#isIdempotent = isIdempotent;
  }

  async runUntilCut(url: string): Promise<void> {
    const producer = this.#isIdempotent ? "keyed" : "plain";
    const chance = { random: this.#random };
    do {
      const count = 1 + Math.floor(this.#random() * RECORDS_MAX);
      this.#open = new KeyedSend(this.#journal, { producer, count, chance });
    } while (await this.#produce(url, this.#open));
  }

  async finish(url: string): Promise<void> {
    if (!this.#isIdempotent || !this.#open) return;
    if (!(await this.#produce(url, this.#open))) throw new Error("the keyed producer got no answer");
  }

  async #produce(url: string, send: KeyedSend): Promise<boolean> {
    const producer = { id: "keyed", epoch: 0, sequence: this.#sequence };
    const request = { records: send.records, ...(this.#isIdempotent && { producer }) };
    const path = `/v1/topics/${COMPACTED.topic}/records`;
    const answer = await new HttpClient({ url }).call("POST", path, request).catch(() => undefined);
    // A 504 says that nobody knows, which is what no answer says.
    if (answer === undefined || answer.status >= 500) return false;
    if (answer.status === 200) send.sentTo(answer.body.runs);
    else this.#journal.problems.push(`a keyed send was answered ${JSON.stringify(answer.body)}`);
    this.#sequence += 1;
    this.#open = undefined;
    return answer.status === 200;
  }
}
