// Browser-safe. What a producer is asked for, and what it answers.

import type {
  Expectation,
  GroupCommits,
  Run,
  TopicExpectation,
  TopicRun,
} from "../../src/protocol/frames.ts";
import { BATCH_RECORDS_MAX, NAME_PATTERN, PRODUCER_ANSWERS_KEPT } from "../../src/protocol/limits.ts";
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

/** As they are used, all there. */
export interface Settings {
  readonly ownId: string | undefined;
  readonly epoch: number;
  readonly isIdempotent: boolean;
  readonly lingerMs: number;
  readonly batchRecords: number;
  readonly inFlight: number;
  readonly deliveryTimeoutMs: number;
  readonly bufferLength: number;
}

const DEFAULT_BUFFER_LENGTH = 32 * 1024 * 1024;
/** Of a timer, in every runtime. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** Throws `bad_request` for an option out of its range. */
export function readSettings(options: ProducerOptions): Settings {
  const { id } = options;
  if (id !== undefined && !NAME_PATTERN.test(id)) refuse("id", id, "a name");
  if (id !== undefined && options.epoch === undefined)
    refuse("epoch", "none beside your id", "the one that POST /v1/producers/:id gives");
  return {
    ownId: id,
    isIdempotent: options.idempotent ?? true,
    epoch: readInteger(options, "epoch", [0, Number.MAX_SAFE_INTEGER], 0),
    lingerMs: readInteger(options, "lingerMs", [0, TIMER_MAX_MS], 0),
    batchRecords: readInteger(options, "batchRecords", [1, BATCH_RECORDS_MAX], 1_000),
    inFlight: readInteger(options, "inFlight", [1, PRODUCER_ANSWERS_KEPT], 5),
    deliveryTimeoutMs: readInteger(options, "deliveryTimeoutMs", [1, TIMER_MAX_MS], 120_000),
    bufferLength: readInteger(options, "bufferBytes", [1, Number.MAX_SAFE_INTEGER], DEFAULT_BUFFER_LENGTH),
  };
}

function readInteger(
  options: ProducerOptions,
  name: Exclude<keyof ProducerOptions, "id" | "idempotent">,
  [min, max]: readonly [number, number],
  byDefault: number,
): number {
  const value = options[name] ?? byDefault;
  if (!Number.isInteger(value) || value < min || value > max)
    refuse(name, value, `an integer, ${min} to ${max}`);
  return value;
}

function refuse(name: string, found: unknown, allowed: string): never {
  throw errorOf("bad_request", `Cannot make a producer: found ${found} as ${name}, allowed ${allowed}`);
}
