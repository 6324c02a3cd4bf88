// A thousand readers at the tail of one partition, and one producer.

import type { AnyServer } from "../test/support/server.ts";
import { type Input, rateOf } from "./input.ts";
import type { Trial } from "./subject.ts";
import { BenchSocket, bodyOf, createTopic, produce } from "./tidemark-client.ts";

const READERS = 1_000;
const BATCH_RECORDS = 300;
const BATCHES = 8;
const RECORDS = BATCH_RECORDS * BATCHES;

export function fanOutTrial(server: AnyServer, { values }: Input): Trial {
  const topic = (round: number) => `fan-out-${round}`;
  const bodies = Array.from({ length: BATCHES }, (_, batch) =>
    bodyOf(values.slice(batch * BATCH_RECORDS, (batch + 1) * BATCH_RECORDS)),
  );
  let readers: readonly BenchSocket[] = [];
  return {
    workload: "fanOut",
    path: `${READERS.toLocaleString("en")} readers at the tail, batches of ${BATCH_RECORDS}, an ack a frame; deliveries/s`,
    prepare: async (round) => {
      await createTopic(server, topic(round), 1);
      readers = await Promise.all(Array.from({ length: READERS }, () => openReader(server, topic(round))));
    },
    run: async (round) => {
      const figures = await rateOf(READERS * RECORDS, async () => {
        const received = Promise.all(readers.map(receiveAll));
        for (const body of bodies) await produce(server, topic(round), body);
        await received;
      });
      for (const reader of readers) reader.close();
      return figures;
    },
  };
}

async function openReader({ streamUrl }: AnyServer, topic: string): Promise<BenchSocket> {
  const reader = await BenchSocket.open(streamUrl);
  const assigned = reader.until("assigned");
  reader.send({ type: "subscribe", topics: [topic], from: "latest" });
  await assigned;
  return reader;
}

/** What a thousand clients would parse, one process cannot: of each frame only its end is looked at. */
function receiveAll(reader: BenchSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    reader.onFailure = reject;
    reader.onText = (text) => {
      if (!text.startsWith('{"type":"records"')) return;
      const [, head = "", next = ""] = text.match(HEAD_AND_NEXT) ?? [];
      const { topic, partition, generation } = JSON.parse(`${head}}`);
      reader.ack({ topic, partition, generation, next: Number(next) });
      if (Number(next) === RECORDS) resolve();
    };
  });
}

const HEAD_AND_NEXT = /^(.*?),"records":.*"next":(\d+)[^}]*\}$/s;
