// The ceiling of the wire: a process that does nothing but send records frames which it has made before, as many at once
// as the largest window holds, to a client that parses them and asks for the next.

import { Output } from "../test/support/server.ts";
import { type Input, inputOf, rateOf } from "./input.ts";
import type { Trial } from "./subject.ts";
import { BenchSocket } from "./tidemark-client.ts";

const FRAME_RECORDS = 500;
const FRAMES_AHEAD = 20;

if (import.meta.main) serve(inputOf(Number(process.argv[2]), 0));

/** Ends with its disposal. */
export async function startBareWebSocket({ values }: Input): Promise<Trial & AsyncDisposable> {
  const child = Bun.spawn([process.execPath, import.meta.path, String(values.length)], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const output = new Output(child.stdout, child);
  if (!(await output.until(/\n/))) throw new Error("the bare WebSocket server did not start");
  return {
    workload: "consume",
    path: `bare WebSocket: frames of ${FRAME_RECORDS} made beforehand, parsed by the client`,
    run: () => rateOf(values.length, () => receive(output.text.trim(), values.length)),
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

async function receive(url: string, expected: number): Promise<void> {
  const socket = await BenchSocket.open(url);
  let received = 0;
  await new Promise<void>((resolve, reject) => {
    socket.onFailure = reject;
    socket.onText = (text) => {
      received += JSON.parse(text).records.length;
      if (received === expected) resolve();
      else socket.sendText("more");
    };
    socket.sendText("begin");
  });
  socket.close();
}

function serve({ values }: Input): void {
  const frames = Array.from({ length: values.length / FRAME_RECORDS }, (_, index) =>
    frameOf(values.slice(index * FRAME_RECORDS, (index + 1) * FRAME_RECORDS)),
  );
  const server = Bun.serve<{ sent: number }, never>({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request, http) =>
      http.upgrade(request, { data: { sent: 0 } }) ? undefined : new Response(null, { status: 426 }),
    websocket: {
      message: (ws, message) => {
        const wanted = message === "begin" ? FRAMES_AHEAD : 1;
        for (const frame of frames.slice(ws.data.sent, ws.data.sent + wanted)) ws.send(frame);
        ws.data.sent += wanted;
      },
    },
  });
  console.log(`ws://127.0.0.1:${server.port}/`);
}

function frameOf(values: readonly string[]): string {
  const records = values.map(
    (value, offset) => `{"offset":${offset},"timestamp":1740830400000,"value":${value}}`,
  );
  return `{"type":"records","records":[${records.join(",")}],"next":${values.length}}`;
}
