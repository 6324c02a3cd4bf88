import { describe, expect, test } from "bun:test";
import { ALARM_FROM_MS, ObjectAlarm } from "../../src/runtimes/object-alarm.ts";
import { FakeTime } from "../support/fake-time.ts";

function open() {
  const alarms: number[] = [];
  const failures: unknown[] = [];
  const storage = {
    error: undefined as Error | undefined,
    setAlarm: async (atMs: number) => {
      if (storage.error) throw storage.error;
      alarms.push(atMs);
    },
  };
  const time = new FakeTime();
  const alarm = new ObjectAlarm(storage, time, (error) => failures.push(error));
  return { alarm, alarms, storage, time, failures };
}

describe("ObjectAlarm.after()", () => {
  test("is a timer in memory for a short time, and writes nothing", async () => {
    const { alarm, alarms, time } = open();
    let runs = 0;
    alarm.after(ALARM_FROM_MS - 1, () => (runs += 1));
    await time.advance(ALARM_FROM_MS);
    expect({ runs, alarms }).toEqual({ runs: 1, alarms: [] });
  });

  test("is an alarm for a long one, and leaves no timer that would keep the object", () => {
    const { alarm, alarms, time } = open();
    let runs = 0;
    const beforeMs = Date.now();
    alarm.after(60_000, () => (runs += 1));
    expect(time.pendingDelaysMs).toEqual([]);
    expect(alarms).toHaveLength(1);
    expect(alarms[0]).toBeGreaterThanOrEqual(beforeMs + 60_000);
    alarm.ring();
    alarm.ring();
    expect(runs).toBe(1);
  });

  test("that was cancelled rings for nothing, and not for the one that took its place", () => {
    const { alarm } = open();
    const ran: string[] = [];
    const cancel = alarm.after(60_000, () => ran.push("first"));
    cancel();
    alarm.ring();
    const cancelOld = alarm.after(60_000, () => ran.push("second"));
    alarm.after(30_000, () => ran.push("third"));
    cancelOld();
    alarm.ring();
    expect(ran).toEqual(["third"]);
  });

  test("says where the alarm could not be set", async () => {
    const { alarm, storage, failures } = open();
    storage.error = new Error("no storage");
    alarm.after(60_000, () => {});
    await Promise.resolve();
    expect(failures).toEqual([storage.error]);
  });
});
