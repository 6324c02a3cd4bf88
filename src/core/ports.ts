// Time and chance, passed in: with them and the database in hand, everything else is deterministic.

export interface Scheduler {
  /** Monotonic milliseconds: only differences mean anything. Leases go by the database's clock, never by this one. */
  nowMs(): number;
  /** Runs once, later. The returned function cancels it. */
  after(delayMs: number, run: () => void): () => void;
  /** Runs in a turn of its own, after the I/O that has already arrived. */
  soon(run: () => void): void;
}

export interface Chance {
  /** From 0 up to 1. */
  random(): number;
  /** Unique for ever and not to be guessed. */
  newId(): string;
}

/** One line for an operator: an event's name and its facts. */
export type Log = (event: string, facts?: Readonly<Record<string, unknown>>) => void;
