// What may go wrong in a run, and how often: drawn anew for each seed, and some of it not at all, so that every mixture
// of faults comes up, a single one by itself too.

import type { Dice } from "../support/dice.ts";

/** Of a call to the database over the network. Each a probability. */
export interface CallFaults {
  /** Nobody answers at once: never sent. */
  readonly refused: number;
  /** It does not arrive, and its sender is not told. */
  readonly lost: number;
  /** It is done, and the answer is lost. */
  readonly unanswered: number;
  /** Its sender has given up when it arrives, and it is done all the same. */
  readonly late: number;
  /** Somebody else has the write lock. */
  readonly busy: number;
  /** A gateway on the way answers 502. */
  readonly gateway: number;
}

/** Of a write to an own file. */
export interface FileFaults {
  readonly busy: number;
  readonly full: number;
  readonly io: number;
  /** The COMMIT fails: written or not. */
  readonly unknown: number;
}

/** Of a request to a server. */
export interface RequestFaults {
  readonly lost: number;
  readonly unanswered: number;
}

/** How long it takes until the next; undefined: never. In virtual milliseconds, on average. */
export interface Disasters {
  readonly crash: number | undefined;
  readonly stop: number | undefined;
  readonly freeze: number | undefined;
  readonly cutOff: number | undefined;
  readonly lock: number | undefined;
  readonly outage: number | undefined;
  readonly clockStep: number | undefined;
  readonly hangUp: number | undefined;
  readonly slowSocket: number | undefined;
}

export interface Faults {
  readonly calls: CallFaults;
  readonly file: FileFaults;
  readonly requests: RequestFaults;
  readonly disasters: Disasters;
}

export const NO_CALL_FAULTS: CallFaults = {
  refused: 0,
  lost: 0,
  unanswered: 0,
  late: 0,
  busy: 0,
  gateway: 0,
};
export const NO_FILE_FAULTS: FileFaults = { busy: 0, full: 0, io: 0, unknown: 0 };
export const NO_REQUEST_FAULTS: RequestFaults = { lost: 0, unanswered: 0 };

const OFTEN_MAX = 0.1;
const EVERY_MIN_MS = 2_000;
const EVERY_MAX_MS = 30_000;

export function drawFaults(dice: Dice): Faults {
  const rate = () => (dice.isLucky(0.5) ? dice.random() * OFTEN_MAX : 0);
  const every = () => (dice.isLucky(0.5) ? dice.spread(EVERY_MIN_MS, EVERY_MAX_MS) : undefined);
  return {
    calls: {
      refused: rate(),
      lost: rate() / 4, // each holds its caller up for seconds
      unanswered: rate(),
      late: rate() / 4,
      busy: rate(),
      gateway: rate(),
    },
    file: { busy: rate(), full: rate(), io: rate(), unknown: rate() },
    requests: { lost: rate(), unanswered: rate() },
    disasters: {
      crash: every(),
      stop: every(),
      freeze: every(),
      cutOff: every(),
      lock: every(),
      outage: every(),
      clockStep: every(),
      hangUp: every(),
      slowSocket: every(),
    },
  };
}
