// A process's resident memory, as an operator sees it from outside.

import { readFileSync } from "node:fs";

const KIB = 1024;
const SAMPLE_INTERVAL_MS = 250;
/** So many samples in a row that differ by less than the tolerance: the garbage collector and the allocator rest. */
const SAMPLES_ALIKE = 8;
const TOLERANCE_BYTES = 512 * KIB;
const SAMPLES_MAX = 80;

/** VmRSS. What the kernel holds for a process's sockets is not in it. */
export function residentBytes(pid: number): number {
  const [, kib] = readFileSync(`/proc/${pid}/status`, "utf8").match(/^VmRSS:\s+(\d+) kB$/m) ?? [];
  if (kib === undefined) throw new Error(`/proc/${pid}/status has no VmRSS`);
  return Number(kib) * KIB;
}

/** The resident memory once it rests; the last sample where it never does. */
export async function settledBytes(pid: number): Promise<number> {
  const samples: number[] = [];
  while (samples.length < SAMPLES_MAX) {
    samples.push(residentBytes(pid));
    const last = samples.slice(-SAMPLES_ALIKE);
    if (last.length === SAMPLES_ALIKE && Math.max(...last) - Math.min(...last) < TOLERANCE_BYTES) break;
    await Bun.sleep(SAMPLE_INTERVAL_MS);
  }
  return samples.at(-1) ?? 0;
}
