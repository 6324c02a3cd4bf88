// What the benchmark compares. A subject is a system that does some of the workloads through its public interface; the
// bench starts it, gives each of its trials its turn in every round, and stops it.

export const WORKLOADS = ["produce", "single", "consume", "latency", "fanOut", "loop"] as const;
export type WorkloadName = (typeof WORKLOADS)[number];

export interface Subject extends AsyncDisposable {
  readonly name: string;
  /** Of server and client, e.g. "nats-server 2.9.10, @nats-io/jetstream 3.4.0". */
  readonly version: string;
  /** What a write has survived when it is acknowledged, in words. */
  readonly durability: string;
  readonly trials: readonly Trial[];
  /** Of a server that is to stand still while others are measured, whatever it does in the background. */
  readonly pid?: number;
}

export interface Trial {
  readonly workload: WorkloadName;
  /** The client's path and its batch setting, in words. */
  readonly path: string;
  /** What is not measured: a topic of its own, the records that are to be consumed. */
  prepare?(round: number): Promise<void>;
  /** `round`: from 0, which only warms up; each round has topics or streams of its own. */
  run(round: number): Promise<Figures>;
}

/** Records (or deliveries) a second; or how long something took, of all that was timed in a round. */
export type Figures =
  | { readonly rate: number }
  | { readonly p50Ms: number; readonly p99Ms: number; readonly maxMs: number };

/** Is not here, and why: a row of the table says so. */
export interface Missing {
  readonly name: string;
  readonly missing: string;
}

export function percentiles(samples: readonly number[]): Figures {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}
