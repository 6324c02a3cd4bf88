// Consume, transform, produce, exactly once: of the earthquakes in "quakes" those above magnitude 4 go into "alerts".
//
//   bun examples/alerts.ts [ws://127.0.0.1:4500/v1/stream]        (or: node 24, deno run --allow-net)
//
// The alerts and the offset that says how far the quakes are done are one transaction: whatever dies, and whenever, both
// are there or none is. What was not written is sent again when this comes back, to it or to whoever has the partition
// then; what was written is not. Run several of it: they share the partitions.

import process from "node:process";

const URL_OF_STREAM = process.argv[2] ?? "ws://127.0.0.1:4500/v1/stream";
const GROUP = "alerting";
const MAGNITUDE = 4;
const RECONNECT_MS = 200;

interface Quake {
  readonly id: string;
  readonly magnitude: number;
}

/** A frame of the server, as far as it is looked at here. PROTOCOL.md has them all. */
interface Frame {
  readonly type: string;
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  readonly next: number;
  readonly records: readonly { readonly offset: number; readonly value: Quake }[];
}

function transactionFor({ topic, partition, generation, next, records }: Frame) {
  const alerts = records
    .filter(({ value }) => value.magnitude > MAGNITUDE)
    .map(({ offset, value }) => ({
      key: value.id,
      value,
      headers: { "origin-partition": String(partition), "origin-offset": String(offset) },
    }));
  return {
    type: "transact",
    appends: alerts.length > 0 ? [{ topic: "alerts", records: alerts }] : [],
    commits: { group: GROUP, offsets: [{ topic, partition, generation, offset: next }] },
  };
}

/** Resolves when the socket has closed. */
function run(): Promise<void> {
  const socket = new WebSocket(URL_OF_STREAM);
  // One transaction at a time: if one fails, none of a later part of the same partition may have been written.
  const waiting: Frame[] = [];
  let isBusy = false;

  const work = () => {
    const frame = isBusy ? undefined : waiting.shift();
    if (!frame) return;
    isBusy = true;
    socket.send(JSON.stringify(transactionFor(frame)));
  };

  socket.onopen = () => {
    const window = { records: 100 };
    socket.send(JSON.stringify({ type: "subscribe", topics: ["quakes"], group: GROUP, window }));
  };
  socket.onmessage = ({ data }) => {
    const frame: Frame = JSON.parse(String(data));
    switch (frame.type) {
      case "ping":
        return socket.send('{"type":"pong"}');
      case "records":
        waiting.push(frame);
        return work();
      case "transacted":
        isBusy = false;
        return work();
      case "error": // fenced, or nobody knows: what is committed decides where to go on
        console.error(String(data));
        return socket.close();
    }
  };
  return new Promise((resolve) => {
    socket.onclose = () => resolve();
    socket.onerror = () => {}; // the close follows
  });
}

for (;;) {
  await run();
  await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
}
