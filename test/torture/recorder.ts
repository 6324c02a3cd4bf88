// Writes the history. A snapshot of a remote database takes a while, and nobody can say at which moment of it the
// database was read: whoever writes here waits until it is over, so that all before the snapshot in the history was
// before it in the database too, and all after it after.

import { writeFileSync } from "node:fs";
import type { HistoryEvent } from "../proof/history.ts";

export class Recorder {
  readonly events: HistoryEvent[] = [];
  #names = 0;
  #snapshot: Promise<unknown> | undefined;

  write(event: HistoryEvent): void {
    this.events.push(event);
  }

  /** One that nobody else has. */
  name(prefix: string): string {
    this.#names += 1;
    return `${prefix}-${this.#names}`;
  }

  /** To be awaited between learning or deciding something and writing it down. */
  async opened(): Promise<void> {
    while (this.#snapshot) await this.#snapshot;
  }

  async closedDuring<T>(snapshot: Promise<T>): Promise<T> {
    const isOver = snapshot.catch(() => undefined).then(() => (this.#snapshot = undefined));
    this.#snapshot = isOver;
    return snapshot;
  }

  /** One event a line. */
  save(path: string): void {
    writeFileSync(path, this.events.map((event) => `${JSON.stringify(event)}\n`).join(""));
  }
}
