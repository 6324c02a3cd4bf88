import assert from "node:assert/strict";
import type { DeliveredRecord } from "../../src/protocol/frames.ts";
import { checksOf } from "./check.ts";
import { assertRefused, bodyOf, call } from "./http.ts";
import { newTopic, partitionPath, produce, read, trim } from "./log.ts";
import { assertMatches, countFrom } from "./match.ts";

const offsetsOf = ({ records }: { records: readonly DeliveredRecord[] }) =>
  records.map(({ offset }) => offset);

export const reads = checksOf("read", {
  "from earliest, latest and an offset": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    const whole = await read(server, topic);
    assertMatches(whole, { next: 5, logStartOffset: 0, logEndOffset: 5 });
    assert.deepEqual(offsetsOf(whole), countFrom(0, 5));
    assert.deepEqual(offsetsOf(await read(server, topic, 0, "?from=earliest")), countFrom(0, 5));
    assertMatches(await read(server, topic, 0, "?from=latest"), { records: [], next: 5 });
    assert.deepEqual(offsetsOf(await read(server, topic, 0, "?from=3")), [3, 4]);
    assertMatches(await read(server, topic, 0, "?from=5"), { records: [], next: 5 });
  },

  "from a time: the lowest offset at or after it, else the end": async (server) => {
    const topic = await newTopic(server);
    await produce(
      server,
      topic,
      [100, 300, 200, 400].map((timestamp) => ({ value: 1, timestamp })),
    );
    assert.deepEqual(offsetsOf(await read(server, topic, 0, "?from=@0")), [0, 1, 2, 3]);
    assert.deepEqual(offsetsOf(await read(server, topic, 0, "?from=@150")), [1, 2, 3]);
    assert.deepEqual(offsetsOf(await read(server, topic, 0, "?from=@301")), [3]);
    assertMatches(await read(server, topic, 0, "?from=@401"), { records: [], next: 4 });
  },

  "in pieces, by limit and by bytes, each record once": async (server) => {
    const topic = await newTopic(server);
    const value = "x".repeat(1_000);
    await produce(
      server,
      topic,
      countFrom(0, 10).map(() => ({ value })),
    );
    const first = await read(server, topic, 0, "?limit=3");
    assert.deepEqual([offsetsOf(first), first.next], [[0, 1, 2], 3]);
    const second = await read(server, topic, 0, "?from=3&maxBytes=2500");
    assert.deepEqual([offsetsOf(second), second.next], [[3, 4], 5]);
    const larger = await read(server, topic, 0, "?from=5&maxBytes=1");
    assert.deepEqual([offsetsOf(larger), larger.next], [[5], 6]);
  },

  "out of the log is offset_out_of_range, with its bounds": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    await trim(server, topic, 2);
    const bounds = { logStartOffset: 2, logEndOffset: 5 };
    for (const found of [1, 6]) {
      const answer = await call(server, "GET", `${partitionPath(topic)}?from=${found}`);
      assertRefused(answer, 416, "offset_out_of_range", { found, ...bounds });
    }
    assertMatches(await read(server, topic), {
      ...bounds,
      records: [{ offset: 2 }, { offset: 3 }, { offset: 4 }],
    });
  },

  "with a parameter that is unknown, there twice or not allowed is bad_request": async (server) => {
    const topic = await newTopic(server);
    const queries = [
      "offset=0",
      "from=0&from=1",
      "from=first",
      "from=-1",
      "from=01",
      "limit=0",
      "limit=x",
      "waitMs=-1",
    ];
    for (const query of queries)
      assertRefused(await call(server, "GET", `${partitionPath(topic)}?${query}`), 400, "bad_request");
    assertRefused(
      await call(server, "GET", partitionPath(topic).replace("/0/", "/first/")),
      400,
      "bad_request",
    );
  },

  "that waits is woken by a produce": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    const waiting = read(server, topic, 0, "?from=2&waitMs=30000");
    bodyOf(await call(server, "GET", "/healthz")); // the one before it is most likely waiting now
    await produce(server, topic, [{ value: "new" }]);
    assertMatches(await waiting, { records: [{ offset: 2, value: "new" }], next: 3, logEndOffset: 3 });
  },

  "that waits in vain is answered with nothing": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    const startedAtMs = performance.now();
    assertMatches(await read(server, topic, 0, "?from=2&waitMs=200"), { records: [], next: 2 });
    assert.ok(performance.now() - startedAtMs >= 190);
  },

  "commits nothing and is the same again": async (server) => {
    const topic = await newTopic(server, { records: 3 });
    assert.deepEqual(await read(server, topic), await read(server, topic));
  },
});
