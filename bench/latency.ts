// How long from the sending of a record to its delivery, while a thousand of them a second are produced.

import type { AnyServer } from "../test/support/server.ts";
import { percentiles, type Trial } from "./subject.ts";
import { BenchSocket, createTopic } from "./tidemark-client.ts";

const RECORDS_A_SECOND = 1_000;
const DURATION_MS = 1_000;

export function latencyTrial(server: AnyServer): Trial {
  const topic = (round: number) => `latency-${round}`;
  return {
    workload: "latency",
    path: `one \`produce\` frame a record, ${RECORDS_A_SECOND} a second, to a group of one member, an ack a frame`,
    prepare: (round) => createTopic(server, topic(round), 1),
    run: async (round) => percentiles(await delays(server, topic(round))),
  };
}

/** The value of a record is when it was sent. */
async function delays({ streamUrl }: AnyServer, topic: string): Promise<readonly number[]> {
  const [producer, consumer] = await Promise.all([BenchSocket.open(streamUrl), BenchSocket.open(streamUrl)]);
  const assigned = consumer.until("assigned");
  consumer.send({ type: "subscribe", topics: [topic], group: topic });
  await assigned;
  const delaysMs: number[] = [];
  const allCame = new Promise<void>((resolve, reject) => {
    consumer.onFailure = producer.onFailure = reject;
    consumer.onText = (text) => {
      const nowMs = performance.now();
      const frame = JSON.parse(text);
      if (frame.type !== "records") return;
      for (const { value } of frame.records) delaysMs.push(nowMs - value.sentAtMs);
      consumer.ack(frame);
      if (delaysMs.length === (RECORDS_A_SECOND * DURATION_MS) / 1_000) resolve();
    };
  });
  await sendPaced(producer, topic);
  await allCame;
  for (const socket of [producer, consumer]) socket.close();
  return delaysMs;
}

/** Timers come late: each sends what is due by now. */
function sendPaced(producer: BenchSocket, topic: string): Promise<void> {
  const startMs = performance.now();
  let sent = 0;
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      const elapsedMs = Math.min(DURATION_MS, performance.now() - startMs);
      for (const due = Math.floor((elapsedMs * RECORDS_A_SECOND) / 1_000); sent < due; sent += 1) {
        const value = { sentAtMs: performance.now(), text: PADDING };
        producer.send({ type: "produce", id: sent, topic, records: [{ value }] });
      }
      if (elapsedMs < DURATION_MS) return;
      clearInterval(timer);
      resolve();
    }, 1);
  });
}

/** With it a value is as large as an earthquake. */
const PADDING = "x".repeat(150);
