// What compaction has deleted of each partition, as snapshots tell. Whether it may have, keep-checks.ts judges.

import type { HistoryEvent, LogRef } from "./history.ts";
import { logKey } from "./log-key.ts";
import { OffsetSet } from "./offset-set.ts";

export class GoneOffsets {
  readonly #gone = new Map<string, OffsetSet>();

  see(event: HistoryEvent): void {
    for (const log of event.type === "snapshot" ? event.logs : [])
      for (const offset of log.gone ?? []) this.#of(log).add(offset, offset + 1);
  }

  has(log: LogRef, offset: number): boolean {
    return this.#gone.get(logKey(log))?.has(offset) ?? false;
  }

  hasAny(log: LogRef): boolean {
    return this.#gone.has(logKey(log));
  }

  #of(log: LogRef): OffsetSet {
    const gone = this.#gone.get(logKey(log)) ?? new OffsetSet();
    this.#gone.set(logKey(log), gone);
    return gone;
  }
}
