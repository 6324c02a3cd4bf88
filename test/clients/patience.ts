// What takes real time: silence that only a side's own clock can notice, handlers that are slower than heartbeats.

import { expect, test } from "bun:test";
import { FaultyProxy } from "../support/faulty-proxy.ts";
import { type ClientStage, expectAllOnce, PARTITIONS } from "./client-stage.ts";
import { goThrough } from "./faults.ts";

/** The shortest: the server pings each 2 s, and the client asks after 3 s of silence and waits 5 s. */
const SESSION_TIMEOUT_MS = 6_000;
const HEARTBEATS_MS = 3 * (SESSION_TIMEOUT_MS / 3) + 500;
const TEST_TIMEOUT_MS = 60_000;
const OPTIONS = { sessionTimeoutMs: SESSION_TIMEOUT_MS };

export function testPatience(stageOf: () => ClientStage): void {
  test(
    "a server that is frozen for longer than a client waits, and goes on: each record once",
    async () => {
      const stage = stageOf();
      await using worker = stage.worker();
      const freeze = async () => {
        process.kill(stage.server.pid, "SIGSTOP");
        await worker.expect("status", { status: "waiting" });
        process.kill(stage.server.pid, "SIGCONT");
      };
      await goThrough(stage, worker, freeze, { options: OPTIONS });
      expect(silences(worker.all("trouble"))).toBe(1);
    },
    TEST_TIMEOUT_MS,
  );

  test(
    "a connection on which nothing goes through and that nobody closes: the client notices by itself",
    async () => {
      const stage = stageOf();
      using proxy = new FaultyProxy(stage.server);
      await using worker = stage.worker(proxy.url);
      const stall = async () => {
        proxy.stall();
        await worker.expect("status", { status: "waiting" });
      };
      await goThrough(stage, worker, stall, { options: OPTIONS });
      expect(silences(worker.all("trouble"))).toBe(1);
    },
    TEST_TIMEOUT_MS,
  );

  test(
    "a handler that takes longer than three heartbeats keeps its connection and its membership",
    async () => {
      const stage = stageOf();
      await using worker = stage.worker();
      const topic = await stage.createTopic(400);
      const options = { group: topic, ...OPTIONS };
      worker.tell({ do: "consume", name: "c", topics: [topic], as: "run", options, isGated: true });
      await worker.until(
        "a record in hand of each partition",
        () => worker.all("begun").length === PARTITIONS,
      );
      const members = () => stage.query("SELECT member_id FROM group_members WHERE group_id = ?", topic);
      const before = members();
      await Bun.sleep(HEARTBEATS_MS);
      expect(members()).toEqual(before);
      worker.tell({ do: "open", name: "c" });
      await worker.untilHandled("c", 400);
      await worker.do({ do: "close", name: "c" });
      expect(worker.all("status").map(({ status }) => status)).toEqual(["connecting", "open"]);
      expect(worker.all("lost")).toEqual([]);
      expectAllOnce(worker.journal("c"), 400);
      stage.expectFinished(topic, 400);
    },
    TEST_TIMEOUT_MS,
  );
}

function silences(troubles: readonly { readonly message: string }[]): number {
  return troubles.filter(({ message }) => message.includes("silent for too long")).length;
}
