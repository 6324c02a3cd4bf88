// What a producer sends to a compacted topic: few keys again and again, tombstones among them; and what becomes of each
// record, for compaction-rules.ts.

import type { ProducedRecord } from "../../src/protocol/frames.ts";
import type { SentRecord } from "./compaction-rules.ts";
import { ID_HEADER } from "./looks.ts";
import { KEYS } from "./topics.ts";

const TOMBSTONES = 0.25;

interface Chance {
  random(): number;
}

/** All producers of one topic. */
export class KeyedJournal {
  readonly sent: SentRecord[] = [];
  /** Answers that nobody can make sense of. */
  readonly problems: string[] = [];
  #names = 0;

  name(prefix: string): string {
    this.#names += 1;
    return `${prefix}-${this.#names}`;
  }
}

export class KeyedSend {
  readonly records: readonly ProducedRecord[];
  readonly #journal: KeyedJournal;
  /** Of its records in the journal. */
  readonly #from: number;

  /** In the journal from now on. */
  constructor(
    journal: KeyedJournal,
    { producer, count, chance }: { producer: string; count: number; chance: Chance },
  ) {
    this.#journal = journal;
    this.#from = journal.sent.length;
    const askedAtMs = Date.now();
    const drafts = Array.from({ length: count }, () => ({
      key: `k${Math.floor(chance.random() * KEYS)}`,
      id: journal.name(producer),
      isTombstone: chance.random() < TOMBSTONES,
      askedAtMs,
    }));
    journal.sent.push(...drafts);
    this.records = drafts.map(({ key, id, isTombstone }) =>
      isTombstone ? { key, value: null, headers: { [ID_HEADER]: id } } : { key, value: id },
    );
  }

  sentTo(
    runs: readonly { readonly partition: number; readonly offset: number; readonly count: number }[],
  ): void {
    const atMs = Date.now();
    const places = runs.flatMap(({ partition, offset, count }) =>
      Array.from({ length: count }, (_, n) => ({ partition, offset: offset + n })),
    );
    if (places.length !== this.records.length)
      this.#journal.problems.push(`${this.records.length} records were answered by ${JSON.stringify(runs)}`);
    for (const [index, place] of places.entries()) this.#answer(index, { atMs, place });
  }

  refused(): void {
    for (const index of this.records.keys()) this.#answer(index, "refused");
  }

  #answer(index: number, answer: SentRecord["answer"]): void {
    const record = this.#journal.sent[this.#from + index];
    if (record) this.#journal.sent[this.#from + index] = { ...record, answer };
  }
}
