// What consumers hold of the server's resident memory, beyond what it had before they came.

import { join } from "node:path";
import { openIdle, openSilent, startForManySockets } from "../test/support/many-sockets.ts";
import { settledBytes } from "../test/support/memory.ts";
import { startServer, temporaryFolder } from "../test/support/server.ts";
import type { MemoryRow } from "./growth-table.ts";
import { bodyOf, createTopic, produce } from "./tidemark-client.ts";

const MIB = 1024 * 1024;
const IDLE = { full: 10_000, quick: 200 };
const IDLE_BYTES_MAX = 150 * MIB;
/** One alone would be lost in what the runtime takes and gives. */
const STALLED = 64;
const STALLED_BYTES_MAX = 2 * MIB;
const BACKLOG_BATCHES = 100;
const BATCH_RECORDS = 1_000;
const VALUE = JSON.stringify("x".repeat(1_000));

export async function measureMemory(isQuick: boolean): Promise<readonly MemoryRow[]> {
  using folder = temporaryFolder();
  const idle = await measureIdle(join(folder.path, "idle.db"), isQuick ? IDLE.quick : IDLE.full);
  return [idle, await measureStalled(join(folder.path, "stalled.db"))];
}

async function measureIdle(databasePath: string, count: number): Promise<MemoryRow> {
  await using server = await startForManySockets(databasePath, count);
  await createTopic(server, "idle", 1);
  const emptyBytes = await settledBytes(server.pid);
  const sockets = await openIdle(server, count, (n) => `?topic=idle&group=g${n}`);
  const bytes = (await settledBytes(server.pid)) - emptyBytes;
  if (sockets.some(({ readyState }) => readyState !== WebSocket.OPEN)) throw new Error("a socket was closed");
  return {
    what: `${count.toLocaleString("en")} idle consumers, a group each`,
    bytes,
    bytesMax: IDLE_BYTES_MAX,
  };
}

/** Each somewhere else in the log, so that they share nothing. */
async function measureStalled(databasePath: string): Promise<MemoryRow> {
  {
    await using server = await startServer(databasePath);
    await createTopic(server, "backlog", 1);
    const body = bodyOf(Array.from({ length: BATCH_RECORDS }, () => VALUE));
    for (let batch = 0; batch < BACKLOG_BATCHES; batch += 1) await produce(server, "backlog", body);
    await server.kill("SIGTERM");
  }
  await using server = await startServer(databasePath);
  const emptyBytes = await settledBytes(server.pid);
  const open = (n: number) =>
    openSilent(server, {
      type: "subscribe",
      topics: ["backlog"],
      from: { offset: n * BATCH_RECORDS },
      ack: "none",
    });
  const sockets = await Promise.all(Array.from({ length: STALLED }, (_, n) => open(n)));
  const bytes = ((await settledBytes(server.pid)) - emptyBytes) / STALLED;
  for (const socket of sockets) socket.close();
  const what = `a consumer that does not read, ${BACKLOG_BATCHES} MB behind (mean of ${STALLED})`;
  return { what, bytes, bytesMax: STALLED_BYTES_MAX };
}
