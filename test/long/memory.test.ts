// What a consumer costs the server: its resident memory as an operator sees it, of a server process of its own for
// each figure, started on a file that has records already. Nobody forces the garbage collector.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import type { SubscribeFrame } from "../../src/protocol/frames.ts";
import { HttpClient } from "../support/http-client.ts";
import { describeLong } from "../support/long.ts";
import { openIdle, openSilent, startForManySockets } from "../support/many-sockets.ts";
import { settledBytes } from "../support/memory.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";

const MIB = 1024 * 1024;
const TEST_TIMEOUT_MS = 120_000;

const IDLE_SUBSCRIPTIONS = 10_000;
const IDLE_BYTES_MAX = 150 * MIB;

const STALLED_CONSUMERS = 64;
const STALLED_BYTES_MAX = 2 * MIB;
const VALUE_BYTES = 1_000;
const RECORDS_PER_MIB = 1_000;
const RECORDS_PER_REQUEST = 3 * RECORDS_PER_MIB;
const SMALL_BACKLOG_MIB = 20;
const LARGE_BACKLOG_MIB = 200;
const PRODUCED_MEANWHILE_MIB = 50;
const LARGE_WINDOW_BYTES = 4 * MIB;

const folder = temporaryFolder();
afterAll(() => folder.remove());

describeLong("memory", "opens 10,000 sockets and writes 300 MiB", () => {
  for (const { name, query } of [
    { name: "readers of one topic", query: () => "?topic=idle&from=latest" },
    { name: "groups of one member each", query: (n: number) => `?topic=idle&group=g${n}` },
  ]) {
    test(
      `10,000 idle ${name} cost at most 150 MiB`,
      async () => {
        await using server = await startForManySockets(
          join(folder.path, `${name.replaceAll(" ", "-")}.db`),
          IDLE_SUBSCRIPTIONS,
        );
        await new HttpClient(server).createTopic("idle");
        const emptyBytes = await settledBytes(server.pid);
        const sockets = await openIdle(server, IDLE_SUBSCRIPTIONS, query);
        const cost = (await settledBytes(server.pid)) - emptyBytes;
        report(`${IDLE_SUBSCRIPTIONS} idle ${name}`, { cost, empty: emptyBytes });
        expect(sockets.filter(({ readyState }) => readyState !== WebSocket.OPEN)).toEqual([]);
        expect(cost).toBeLessThanOrEqual(IDLE_BYTES_MAX);
      },
      TEST_TIMEOUT_MS,
    );
  }

  const databasePath = join(folder.path, "backlog.db");

  beforeAll(async () => {
    await using server = await startServer(databasePath);
    await produceMib(server, "small", SMALL_BACKLOG_MIB);
    await produceMib(server, "large", LARGE_BACKLOG_MIB);
    await server.kill("SIGTERM");
  }, TEST_TIMEOUT_MS);

  interface Stalled {
    readonly name: string;
    readonly open: (server: TestServer, subscribe: SubscribeFrame) => Promise<{ close(): void }>;
    readonly fields: (n: number) => Partial<SubscribeFrame>;
    readonly bytesMax: number;
  }

  const window = { records: 10_000, bytes: LARGE_WINDOW_BYTES };
  const inGroup = (n: number) => ({ group: `stalled-${n}`, reset: placeOf(n) });
  const asReader = (n: number) => ({ from: placeOf(n), ack: "none" as const });
  const variants: readonly Stalled[] = [
    {
      name: "that reads and never acknowledges",
      open: openReading,
      fields: inGroup,
      bytesMax: STALLED_BYTES_MAX,
    },
    { name: "that does not read", open: openSilent, fields: inGroup, bytesMax: STALLED_BYTES_MAX },
    {
      name: "without acks that does not read",
      open: openSilent,
      fields: asReader,
      bytesMax: STALLED_BYTES_MAX,
    },
    {
      name: "with a window of 4 MiB that does not read",
      open: openSilent,
      fields: (n) => ({ ...inGroup(n), window }),
      bytesMax: 2 * STALLED_BYTES_MAX,
    },
    {
      name: "with a window of 4 MiB, without acks, that does not read",
      open: openSilent,
      fields: (n) => ({ ...asReader(n), window }),
      bytesMax: 2 * STALLED_BYTES_MAX,
    },
  ];

  for (const { name, open, fields, bytesMax } of variants) {
    test(
      `a consumer ${name} costs at most ${bytesMax / MIB} MiB, whatever its backlog and however long`,
      async () => {
        const small = await costEach("small");
        const large = await costEach("large");
        report(`a consumer ${name}`, {
          "backlog 20 MiB": small.stalled,
          "backlog 200 MiB": large.stalled,
          "50 MiB later": large.later,
        });
        for (const cost of [small.stalled, large.stalled, large.later])
          expect(cost).toBeLessThanOrEqual(bytesMax);
      },
      TEST_TIMEOUT_MS,
    );

    async function costEach(topic: string): Promise<{ stalled: number; later: number }> {
      await using server = await startServer(databasePath);
      // What a server keeps of having appended is not the consumers': it has done as much before.
      if (topic === "large") await produceMib(server, topic, PRODUCED_MEANWHILE_MIB);
      const emptyBytes = await settledBytes(server.pid);
      const sockets = await Promise.all(
        Array.from({ length: STALLED_CONSUMERS }, (_, n) =>
          open(server, { type: "subscribe", topics: [topic], ...fields(n) }),
        ),
      );
      const each = async () => ((await settledBytes(server.pid)) - emptyBytes) / STALLED_CONSUMERS;
      const stalled = await each();
      if (topic === "large") await produceMib(server, topic, PRODUCED_MEANWHILE_MIB);
      const later = await each();
      for (const socket of sockets) socket.close();
      return { stalled, later };
    }
  }
});

/** Each its own part of the log: what is shared would cost nothing. The records' timestamps are their offsets. */
function placeOf(n: number) {
  return { timestamp: n * 200 };
}

/** Resolves with the first records. */
async function openReading({ streamUrl }: TestServer, subscribe: SubscribeFrame) {
  const socket = new WebSocket(streamUrl);
  await new Promise<void>((resolve, reject) => {
    socket.onopen = () => socket.send(JSON.stringify(subscribe));
    socket.onmessage = ({ data }) => String(data).startsWith('{"type":"records"') && resolve();
    socket.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
  });
  return socket;
}

async function produceMib(server: TestServer, topic: string, mib: number): Promise<void> {
  const http = new HttpClient(server);
  const value = "x".repeat(VALUE_BYTES);
  for (let offset = 0; offset < mib * RECORDS_PER_MIB; offset += RECORDS_PER_REQUEST) {
    const count = Math.min(RECORDS_PER_REQUEST, mib * RECORDS_PER_MIB - offset);
    const records = Array.from({ length: count }, (_, n) => ({ value, timestamp: offset + n }));
    await http.produce(topic, records);
  }
}

function report(what: string, bytes: Readonly<Record<string, number>>): void {
  const told = Object.entries(bytes).map(([name, size]) => `${name} ${(size / MIB).toFixed(2)} MiB`);
  console.log(`${what}: ${told.join(", ")}`);
}
