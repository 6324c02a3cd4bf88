// Topics with types: what the compiler takes and what is checked at run time, on both sides, with valibot against a real
// server.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import * as v from "valibot";
import { connect, defineTopics, SchemaViolationError } from "../../clients/typescript/client.ts";
import type { CheckedValueOf, StandardSchema, ValueOf } from "../../clients/typescript/topics.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";

const folder = temporaryFolder();
let server: TestServer;

beforeAll(async () => {
  server = await startServer(`${folder.path}/t.db`);
});
afterAll(async () => {
  await server.kill("SIGKILL");
  folder.remove();
});

/** A day travels as text, and is a Date for who consumes it checked. */
const Order = v.object({ total: v.number(), day: v.pipe(v.string(), v.isoDate(), v.toDate()) });
const Payment = v.object({ cents: v.pipe(v.number(), v.integer()) });

const topics = defineTopics({ orders: { value: Order }, payments: { value: Payment } });
type Topics = typeof topics;

/** Both are the same type, or this does not compile. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <const Claim extends true>(claim: Claim): Claim => claim;

test("the types of values are those of the schema: its input travels, its output is what a check gives", () => {
  expect(same<Same<ValueOf<Topics, "orders">, { total: number; day: string }>>(true)).toBe(true);
  expect(same<Same<CheckedValueOf<Topics, "orders">, { total: number; day: Date }>>(true)).toBe(true);
  expect(same<Same<ValueOf<Topics, "payments">, { cents: number }>>(true)).toBe(true);
});

describe("a client with topics", () => {
  const checked = () => connect({ url: server.url, topics, check: true });
  const unchecked = () => connect({ url: server.url, topics });

  test("takes no other topic and no other value, for the compiler", async () => {
    await using client = checked();
    // @ts-expect-error: there is no such topic
    const misspelt = () => client.produce("ordrs", { value: {} });
    // @ts-expect-error: a total is a number
    const wrong = () => client.produce("payments", { value: { cents: "12" } });
    // @ts-expect-error: a value or bytes
    const empty = () => client.produce("payments", { key: "ada" });
    const money = [{ value: { cents: 12 } }];
    // @ts-expect-error: what two topics have is one or the other
    const mixed = () => client.transact({ appends: [{ topic: "orders", records: money }] });
    expect([misspelt, wrong, empty, mixed].map((each) => typeof each)).toEqual(Array(4).fill("function"));
  });

  test("refuses a value before it is sent, says where it is wrong, and writes nothing of the call", async () => {
    await using client = checked();
    const failure = client.produce("payments", [{ value: { cents: 1 } }, { value: { cents: 0.5 } }]);
    const error = await failure.catch((error) => error);
    expect(error).toBeInstanceOf(SchemaViolationError);
    expect(error).toMatchObject({
      code: "schema_violation",
      retriable: false,
      facts: { topic: "payments", record: 1 },
    });
    expect(error.issues[0].path[0].key).toBe("cents");
    const refused = client.transact({
      appends: [{ topic: "payments", records: [{ value: { cents: 0.5 } }] }],
    });
    expect(await refused.catch(({ code }) => code)).toBe("schema_violation");
    expect(await client.admin.topics()).toEqual([]);
  });

  test("produces what was given, and consumes what the schema makes of it", async () => {
    await using client = checked();
    await client.produce("orders", { value: { total: 12.5, day: "2026-11-26" } });
    for await (const batch of client.consume("orders", { group: "typed", onInvalid: () => {} })) {
      const [record] = batch.records;
      const day: Date | undefined = record?.value.day;
      expect(day).toEqual(new Date("2026-11-26"));
      break;
    }
    for await (const { records } of unchecked().read("orders")) {
      const day: string | undefined = records[0]?.value.day;
      expect(day).toBe("2026-11-26");
      break;
    }
  });

  test("several topics at once are told apart by their name", async () => {
    await using client = checked();
    await client.produce("payments", { value: { cents: 1_250 } });
    for await (const record of client.read(["orders", "payments"]).records()) {
      if (record.topic !== "payments") continue;
      const cents: number = record.value.cents;
      expect(cents).toBe(1_250);
      break;
    }
  });
});

describe("a record that the schema does not allow", () => {
  const bad = [{ value: { cents: 1 } }, { value: { cents: "two" } }, { value: { cents: 3 } }] as const;

  async function produceBad(topic: string): Promise<void> {
    await using client = connect({ url: server.url });
    await client.produce(topic, bad);
  }

  test("is told to onInvalid, skipped, and does not stop the consumer", async () => {
    await produceBad("skipped");
    const definitions = defineTopics({ skipped: { value: Payment } });
    await using client = connect({ url: server.url, topics: definitions, check: true });
    const invalid: unknown[] = [];
    const onInvalid = ({ offset, value }: { offset: number; value: unknown }) =>
      invalid.push([offset, value]);
    const consumer = client.consume("skipped", { group: "g", onInvalid });
    for await (const batch of consumer) {
      expect(batch.records.map(({ value }) => value.cents)).toEqual([1, 3]);
      await batch.ack();
      break;
    }
    expect(invalid).toEqual([[1, { cents: "two" }]]);
  });

  test("goes to the dead-letter topic with the ack that passes it, as it was", async () => {
    await produceBad("buried");
    const definitions = defineTopics({ buried: { value: Payment } });
    await using client = connect({ url: server.url, topics: definitions, check: true });
    const consumer = client.consume("buried", { group: "g", deadLetter: "buried-failed" });
    for await (const batch of consumer) {
      await batch.ack();
      break;
    }
    const { records } = await client.admin.readRecords({
      topic: "buried-failed",
      partition: 0,
      from: "earliest",
    });
    expect(records).toMatchObject([
      {
        value: { cents: "two" },
        headers: {
          "tidemark-error": expect.stringContaining("Invalid type"),
          "tidemark-origin-topic": "buried",
          "tidemark-origin-partition": "0",
          "tidemark-origin-offset": "1",
        },
      },
    ]);
    const { offsets } = await client.admin.group("g");
    expect(offsets.find(({ topic }) => topic === "buried")).toMatchObject({ committedOffset: 3, lag: 0 });
  });

  test("where there are no others: who acknowledges by hand gets an empty batch, and all others none", async () => {
    await using producing = connect({ url: server.url });
    await producing.produce("empty", { value: "no payment" });
    await producing.produce("empty", { value: { cents: 1 } });
    const definitions = defineTopics({ empty: { value: Payment } });
    await using client = connect({ url: server.url, topics: definitions, check: true });
    const sizesOf = async (ack: "manual" | "each-batch") => {
      const sizes: number[] = [];
      const window = { records: 1 }; // a record a batch
      for await (const batch of client.consume("empty", { group: ack, ack, window, onInvalid: () => {} })) {
        sizes.push(batch.records.length);
        if (ack === "manual") await batch.ack();
        if (batch.records.length > 0) break;
      }
      return sizes;
    };
    expect([await sizesOf("manual"), await sizesOf("each-batch")]).toEqual([[0, 1], [1]]);
  });

  test("must have somewhere to go: a consumer that checks says where", async () => {
    await using client = connect({ url: server.url, topics, check: true });
    expect(() => client.consume("orders", { group: "g" })).toThrow(
      'say what becomes of a record that its schema does not allow, by "deadLetter" or "onInvalid"',
    );
    expect(() => client.consume("orders", { group: "g", deadLetter: "x", ack: "none" })).toThrow(
      "a dead letter is written with the ack",
    );
  });
});

test("a schema of any library that keeps to Standard Schema will do, also one that answers later", async () => {
  const Even: StandardSchema<number, number> = {
    "~standard": {
      version: 1,
      vendor: "by hand",
      validate: async (value) =>
        Number(value) % 2 === 0 ? { value: Number(value) } : { issues: [{ message: "odd" }] },
    },
  };
  await using client = connect({
    url: server.url,
    topics: defineTopics({ even: { value: Even } }),
    check: true,
  });
  expect(await client.produce("even", { value: 3 }).catch(({ message }) => message)).toContain("odd");
  expect(await client.produce("even", { value: 4 })).toMatchObject({
    runs: [{ partition: 0, offset: 0, count: 1 }],
  });
});
