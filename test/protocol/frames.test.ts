import { describe, expect, test } from "bun:test";
import { Problem } from "../../src/core/problem.ts";
import { CLOSE_CODES, ERROR_CODES, type ErrorCode } from "../../src/protocol/codes.ts";
import type { RecordsFrame } from "../../src/protocol/frames.ts";
import { framesOf, joinedPartition, joinResult, SessionScript, theOne } from "../support/session-script.ts";

const codes = Object.keys(ERROR_CODES) as ErrorCode[]; // of a constant: its keys are its type's

describe("error codes", () => {
  test("are those of the contract, no more and no fewer", () => {
    const contract =
      "bad_request bad_frame unauthenticated forbidden unknown_topic unknown_partition unknown_group unknown_subscription conflict no_committed_offset offset_out_of_range fenced_generation not_assigned record_too_large batch_too_large frame_too_large rate_limited fenced_producer sequence_gap schema_violation storage_full unavailable outcome_unknown internal";
    expect<string[]>([...codes].sort()).toEqual(contract.split(" ").sort());
  });

  test("are retriable where the same request may succeed later: four of them", () => {
    const retriable = codes.filter((code) => ERROR_CODES[code].retriable);
    expect(retriable.sort()).toEqual(["outcome_unknown", "rate_limited", "storage_full", "unavailable"]);
  });

  const statuses: readonly (readonly [status: number, codes: readonly string[]])[] = [
    [400, ["bad_request", "bad_frame"]],
    [401, ["unauthenticated"]],
    [403, ["forbidden"]],
    [404, ["unknown_topic", "unknown_partition", "unknown_group", "unknown_subscription"]],
    [
      409,
      [
        "conflict",
        "fenced_generation",
        "fenced_producer",
        "sequence_gap",
        "no_committed_offset",
        "not_assigned",
      ],
    ],
    [413, ["record_too_large", "batch_too_large", "frame_too_large"]],
    [416, ["offset_out_of_range"]],
    [422, ["schema_violation"]],
    [429, ["rate_limited"]],
    [500, ["internal"]],
    [503, ["unavailable"]],
    [504, ["outcome_unknown"]],
    [507, ["storage_full"]],
  ];
  for (const [status, expected] of statuses) {
    test(`of status ${status}: ${expected.join(", ")}`, () => {
      const found: string[] = codes.filter((code) => ERROR_CODES[code].status === status);
      expect(found.sort()).toEqual([...expected].sort());
    });
  }

  for (const code of codes) {
    test(`${code} reaches the client as an error frame with every member that it documents`, () => {
      const script = new SessionScript();
      const ref = script.subscribe({ id: 7, subscription: "s1" });
      const problem = new Problem(code, `why "${code}"`);
      expect(framesOf(script.step({ type: "openFailed", ref, problem }))).toEqual([
        {
          type: "error",
          id: 7,
          subscription: "s1",
          code,
          message: `why "${code}"`,
          retriable: ERROR_CODES[code].retriable,
        },
      ]);
    });
  }
});

test("close codes are those of the contract, each its own", () => {
  expect(Object.values(CLOSE_CODES).sort()).toEqual([1000, 1009, 4000, 4008, 4029, 4400, 4401, 4403]);
});

describe("a records frame", () => {
  /** The text that a session sends for these records. */
  const textOf = (records: string, extent: { count: number; next: number }) => {
    const script = new SessionScript();
    const partition = joinedPartition({
      topic: "o.r_d-1",
      partition: 12,
      generation: 5,
      committedOffset: 42,
    });
    const ref = script.subscribe({ subscription: "s.1_x-", topics: ["o.r_d-1"] });
    const read = theOne(script.join(ref, joinResult({ partitions: [partition] })), "read");
    const chunk = { ...extent, bytes: records.length, logStartOffset: 0, logEndOffset: 100, records };
    return theOne(script.step({ type: "chunk", ref: read.ref, chunk }), "sendText").text;
  };

  test("has exactly the members that it documents, and the records as they came", () => {
    const records = '{"offset":42,"timestamp":5,"key":"u1","headers":{"a":"b"},"value":{"n":1}}';
    const second = '{"offset":43,"timestamp":6,"value":null}';
    const frame: RecordsFrame = JSON.parse(textOf(`${records},${second}`, { count: 2, next: 44 }));
    expect(frame).toEqual({
      type: "records",
      subscription: "s.1_x-",
      generation: 5,
      topic: "o.r_d-1",
      partition: 12,
      records: [
        { offset: 42, timestamp: 5, key: "u1", headers: { a: "b" }, value: { n: 1 } },
        { offset: 43, timestamp: 6, value: null },
      ],
      next: 44,
      logEndOffset: 100,
    });
  });

  test("delivers a value byte for byte, though JSON.parse would change it", () => {
    for (const value of [
      "2.0",
      "1E400",
      "12345678901234567890",
      '{"b":1,"a":2,"b":3}',
      '"\\ud800"',
      '"\\u0000"',
    ]) {
      const record = `{"offset":42,"timestamp":5,"value":${value}}`;
      expect(textOf(record, { count: 1, next: 43 })).toContain(`"records":[${record}],`);
    }
  });
});
