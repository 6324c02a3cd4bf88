// Servers with thousands of sockets, and clients that do nothing with theirs.

import { readFileSync } from "node:fs";
import type { SubscribeFrame } from "../../src/protocol/frames.ts";
import { RawSocket } from "./raw-socket.ts";
import { startServer, type TestServer } from "./server.ts";

/** Sockets that are opened at the same time; the kernel refuses more than its backlog. */
const OPENING_MAX = 100;
/** Beside the sockets: database, log and the runtime's own. */
const OTHER_FILES = 200;

/** Rejects where the machine does not allow so many files. */
export async function startForManySockets(databasePath: string, sockets: number): Promise<TestServer> {
  const files = sockets + OTHER_FILES;
  const ownFiles = filesMax("self");
  if (ownFiles < files) throw new Error(`this process may open ${ownFiles} files, needed are ${files}`);
  const raiseLimit = `ulimit -n ${files} 2>/dev/null; exec "$@"`;
  const server = await startServer(databasePath, { prefix: ["sh", "-c", raiseLimit, "sh"] });
  const serverFiles = filesMax(server.pid);
  if (serverFiles >= files) return server;
  await server.kill("SIGKILL");
  throw new Error(`the server may open ${serverFiles} files, needed are ${files}`);
}

function filesMax(process: number | "self"): number {
  const [, soft] = readFileSync(`/proc/${process}/limits`, "utf8").match(/^Max open files\s+(\d+)/m) ?? [];
  return Number(soft);
}

/** Bun's client answers the protocol's pings, so they live as long as this process. */
export async function openIdle(
  { streamUrl }: TestServer,
  count: number,
  query: (n: number) => string,
): Promise<readonly WebSocket[]> {
  const sockets: WebSocket[] = [];
  const openNext = async () => {
    while (sockets.length < count) {
      const socket = new WebSocket(streamUrl + query(sockets.length));
      sockets.push(socket);
      await untilAssigned(socket);
    }
  };
  await Promise.all(Array.from({ length: OPENING_MAX }, openNext));
  return sockets;
}

function untilAssigned(socket: WebSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.onmessage = ({ data }) => String(data).startsWith('{"type":"assigned"') && resolve();
    socket.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
  });
}

/** Subscribes and never reads. */
export async function openSilent({ streamUrl }: TestServer, subscribe: SubscribeFrame): Promise<RawSocket> {
  const socket = await RawSocket.openSilent(streamUrl);
  await socket.send([JSON.stringify(subscribe)]);
  return socket;
}
