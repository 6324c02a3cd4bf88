// Consume, transform, produce, exactly once: of the earthquakes in "quakes" those above magnitude 4 go into "alerts".
//
//   bun examples/alerts.ts [http://127.0.0.1:4500]        (or: deno run --allow-net)
//
// The alerts and the offset that says how far the quakes are done are one transaction: whatever dies, and whenever, both
// are there or none is. What was not written is sent again when this comes back, to it or to whoever has the partition
// then; what was written is not. Run several of it: they share the partitions.

import process from "node:process";
import { connect, defineTopics, FencedError } from "@tidemark/client";
import * as v from "valibot";

const MAGNITUDE = 4;

const quake = v.object({ id: v.string(), magnitude: v.number() });
const topics = defineTopics({ quakes: { value: quake }, alerts: { value: quake } });

const tidemark = connect({ url: process.argv[2] ?? "http://127.0.0.1:4500", topics });
tidemark.on("trouble", (error) => console.error(error.message)); // it connects again by itself

// "manual": nothing is committed but by the transactions.
const quakes = tidemark.consume("quakes", { group: "alerting", window: { records: 100 }, ack: "manual" });

for await (const batch of quakes) {
  const alerts = batch.records
    .filter(({ value }) => value.magnitude > MAGNITUDE)
    .map(({ offset, value }) => ({
      key: value.id,
      value,
      headers: { "origin-partition": String(batch.partition), "origin-offset": String(offset) },
    }));
  const appends = alerts.length > 0 ? [{ topic: "alerts" as const, records: alerts }] : [];
  try {
    await tidemark.transact({ appends, commits: batch });
  } catch (error) {
    if (!(error instanceof FencedError)) throw error;
    console.error(error.message); // nothing was written: its owner gets the batch
  }
}
