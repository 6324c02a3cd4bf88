// A worker that stays up: ships every order of "orders", up to 8 partitions side by side. What fails is tried again, and
// what fails for the third time goes to "orders-failed", with the reason in its headers.
//
//   bun examples/worker.ts [http://127.0.0.1:4500]        (or: deno run --allow-net)
//
// It says what it ships, and every 10 s how it stands. Run several: they share the partitions. On SIGTERM it finishes the
// orders that it has in hand, acknowledges them and leaves the group. Killed, it is sent again what it had not acknowledged:
// at least once.

import process from "node:process";
import { connect } from "@tidemark/client";

const STATUS_MS = 10_000;

interface Order {
  readonly total: number;
}

const tidemark = connect({ url: process.argv[2] ?? "http://127.0.0.1:4500" });
tidemark.on("status", (status) => console.log(`connection: ${status}`));
tidemark.on("trouble", (error) => console.error(error.message)); // it connects again by itself

const consumer = tidemark.consume("orders", {
  group: "shipping",
  retry: { attempts: 3, backoffMs: 200 },
  deadLetter: "orders-failed",
});

let shipped = 0;
let failures = 0;

function status(): string {
  const lag = consumer.partitions.reduce(
    (sum, { logEndOffset, position }) => sum + logEndOffset - position,
    0,
  );
  return `${shipped} shipped, ${failures} attempts failed, ${consumer.partitions.length} partitions, ${lag} behind`;
}

/** Stops where `signal` aborts: then the partition is somebody else's, who is sent the order again. */
async function ship(key: string | undefined, { total }: Order, signal: AbortSignal): Promise<void> {
  if (typeof total !== "number") throw new Error("an order without a total");
  signal.throwIfAborted();
  console.log(`shipped ${key} for ${total}`);
  shipped += 1;
}

const ticker = setInterval(() => console.log(status()), STATUS_MS);
for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void tidemark.close());

await consumer.run(
  async ({ key, value }, { signal }) => {
    try {
      await ship(key, value as Order, signal);
    } catch (error) {
      failures += 1;
      throw error; // tried again
    }
  },
  { concurrency: 8 },
);
clearInterval(ticker);
console.log(`stopped: ${shipped} shipped, ${failures} attempts failed`);
