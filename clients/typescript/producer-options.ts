// Browser-safe. What a producer is asked for, and what it answers.

import type {
  Expectation,
  GroupCommits,
  Run,
  TopicExpectation,
  TopicRun,
} from "../../src/protocol/frames.ts";
import {
  BATCH_RECORDS_MAX,
  INTEGER_MAX,
  NAME_PATTERN,
  PRODUCER_ANSWERS_KEPT,
  PRODUCER_IDLE_MAX_MS,
} from "../../src/protocol/limits.ts";
import { errorOf } from "./errors.ts";
import type { ProducerRecord } from "./producer-records.ts";

export interface ProducerOptions {
  /** A name of your own, by which earlier runs are fenced; needs `epoch`. By default one that nobody else has. */
  readonly id?: string | undefined;
  /** Of your `id`, as `POST /v1/producers/:id` has given it to this run and no other. */
  readonly epoch?: number | undefined;
  /** How long a send waits for others to go with it, in milliseconds. 0 by default: for those of the same turn. */
  readonly lingerMs?: number | undefined;
  /** Most records of several sends that go together, 1 to 10,000; 1,000 by default. */
  readonly batchRecords?: number | undefined;
  /** True by default. False: what is lost on the way is not sent again, and the order is not kept after trouble. */
  readonly idempotent?: boolean | undefined;
  /** Frames that may be unanswered, 1 to 16; 5 by default. */
  readonly inFlight?: number | undefined;
  /** How long a send is tried, in milliseconds, or a sixteenth longer; 120,000 by default. */
  readonly deliveryTimeoutMs?: number | undefined;
  /** Most text of sends that are unanswered, in characters; 33,554,432 by default. One larger send is taken alone. */
  readonly bufferBytes?: number | undefined;
}

export interface SendOptions {
  /** Nothing is written unless these partitions end exactly there: `conflict` otherwise. Such a send travels alone. */
  readonly expect?: readonly Expectation[] | undefined;
  /** Takes the send back while it waits, and rejects it with the signal's reason. What has been sent goes on. */
  readonly signal?: AbortSignal | undefined;
}

export interface Produced {
  /** Where the records are, in their order: consecutive ones of one partition are one run. */
  readonly runs: readonly Run[];
  /** It was sent more than once, and an earlier one had been written: these are its runs. */
  readonly duplicate?: true;
}

export interface Transaction {
  /** May be empty where there are commits. */
  readonly appends: readonly {
    readonly topic: string;
    readonly records: ProducerRecord | readonly ProducerRecord[];
  }[];
  /**
   * A function is asked each time the transaction is sent: after a reconnect the generations are others. What it throws
   * at the first time rejects the transaction; later what it said last goes again, and the server judges it.
   */
  readonly commits?: GroupCommits | (() => GroupCommits) | undefined;
  readonly expect?: readonly TopicExpectation[] | undefined;
}

export interface Transacted {
  readonly runs: readonly TopicRun[];
  /** As in `Produced`. */
  readonly duplicate?: true;
}

/** Of a timer, in every runtime; and below the time in which a server forgets a producer. */
const TIMER_MAX_MS = PRODUCER_IDLE_MAX_MS / 2;

type NumberName = Exclude<keyof ProducerOptions, "id" | "idempotent">;

/** By default, at least, at most. */
const NUMBERS: Readonly<Record<NumberName, readonly [number, number, number]>> = {
  epoch: [0, 0, INTEGER_MAX],
  lingerMs: [0, 0, TIMER_MAX_MS],
  batchRecords: [1_000, 1, BATCH_RECORDS_MAX],
  inFlight: [5, 1, PRODUCER_ANSWERS_KEPT],
  deliveryTimeoutMs: [120_000, 1, TIMER_MAX_MS],
  bufferBytes: [32 * 1024 * 1024, 1, INTEGER_MAX],
};

/** As they are used. */
export interface Settings extends Readonly<Record<NumberName, number>> {
  readonly id: string | undefined;
  readonly idempotent: boolean;
}

/** Throws `bad_request` for an option out of its range. */
export function readSettings(options: ProducerOptions): Settings {
  const { id, epoch, idempotent = true } = options;
  if (id !== undefined && !NAME_PATTERN.test(id)) refuse("id", id, "a name");
  if (id !== undefined && epoch === undefined)
    refuse("epoch", "none beside your id", "what POST /v1/producers/:id gives");
  const numbers = Object.entries(NUMBERS).map(([name, [byDefault, min, max]]) => {
    const value = options[name as NumberName] ?? byDefault; // it is one of their names
    if (!Number.isInteger(value) || value < min || value > max) refuse(name, value, `${min} to ${max}`);
    return [name, value] as const;
  });
  return { id, idempotent, ...(Object.fromEntries(numbers) as Record<NumberName, number>) }; // one of each
}

function refuse(name: string, found: unknown, allowed: string): never {
  throw errorOf("bad_request", `Cannot make a producer: found ${found} as ${name}, allowed ${allowed}`);
}
