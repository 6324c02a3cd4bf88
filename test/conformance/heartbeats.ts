// Who is silent. Each of these takes eight seconds of real time, three heartbeats and one more of the shortest session
// timeout: test/long/heartbeats.test.ts runs them, not the suite.

import assert from "node:assert/strict";
import type { Check, ServerUnderTest } from "./check.ts";
import { newName, newTopic } from "./log.ts";

const PATIENCE_MS = 20_000;
/** The shortest session timeout: a heartbeat is a third of it. */
const SESSION_TIMEOUT_MS = 6_000;
const PINGS_UNANSWERED_MAX = 3;

interface Silence {
  readonly pings: number;
  /** How the server has closed it; undefined while it has not. */
  readonly code: number | undefined;
}

/** A member that answers some pings, until it is closed or has seen so many. A runtime's client answers the protocol's. */
function listen(
  server: ServerUnderTest,
  topic: string,
  { pingsMax, answers }: { pingsMax: number; answers: boolean },
): Promise<Silence> {
  const query = `?topic=${topic}&group=${newName("group")}&sessionTimeoutMs=${SESSION_TIMEOUT_MS}`;
  const socket = new WebSocket(server.streamUrl + query);
  return new Promise((resolve, reject) => {
    let pings = 0;
    const late = setTimeout(() => end(new Error(`${pings} pings in ${PATIENCE_MS} ms`)), PATIENCE_MS);
    const end = (outcome: Silence | Error) => {
      clearTimeout(late);
      socket.close(1000);
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    };
    socket.onmessage = ({ data }) => {
      if (JSON.parse(String(data)).type !== "ping") return;
      pings += 1;
      if (answers) socket.send('{"type":"pong"}');
      if (pings === pingsMax) end({ pings, code: undefined });
    };
    socket.onclose = ({ code }) => end({ pings, code });
  });
}

/** One more than may go unanswered. */
const pingsMax = PINGS_UNANSWERED_MAX + 1;

export const heartbeats: readonly Check[] = [
  {
    area: "heartbeats",
    name: "a client that answers pings with pongs stays",
    check: async (server) => {
      const topic = await newTopic(server);
      assert.deepEqual(await listen(server, topic, { pingsMax, answers: true }), {
        pings: pingsMax,
        code: undefined,
      });
    },
  },
  {
    area: "heartbeats",
    name: "a client that answers the protocol's pings alone stays",
    needs: "protocolPings",
    check: async (server) => {
      const topic = await newTopic(server);
      assert.deepEqual(await listen(server, topic, { pingsMax, answers: false }), {
        pings: pingsMax,
        code: undefined,
      });
    },
    otherwise: {
      name: "a client that answers the protocol's pings alone is closed with 4008 after three",
      check: async (server) => {
        const topic = await newTopic(server);
        const silence = await listen(server, topic, { pingsMax, answers: false });
        assert.deepEqual(silence, { pings: PINGS_UNANSWERED_MAX, code: 4008 });
      },
    },
  },
];
