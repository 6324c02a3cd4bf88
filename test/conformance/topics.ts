import assert from "node:assert/strict";
import { checksOf } from "./check.ts";
import { assertRefused, bodyOf, call } from "./http.ts";
import { logEndsOf, newName, newTopic, partitionPath, produce, read } from "./log.ts";
import { assertMatches, countFrom } from "./match.ts";

export const topics = checksOf("topics", {
  "PUT creates a topic of one partition, with every default": async (server) => {
    const topic = newName("topic");
    const body = bodyOf(await call(server, "PUT", `/v1/topics/${topic}`), 201);
    const { topicId, createdAt } = body;
    assert.ok(Number.isSafeInteger(topicId) && Number.isSafeInteger(createdAt));
    const partition = { partition: 0, logStartOffset: 0, logEndOffset: 0, records: 0, bytes: 0 };
    const defaults = { retention: null, cleanup: "delete", compaction: null, schema: null };
    const expected = { topic, topicId, partitionCount: 1, partitions: [partition], ...defaults, createdAt };
    assert.deepEqual(body, expected);
    assert.deepEqual(bodyOf(await call(server, "GET", `/v1/topics/${topic}`)), expected);
  },

  "PUT again is 200, adds partitions, and keeps the topic and what is in it": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    const { topicId } = bodyOf(await call(server, "GET", `/v1/topics/${topic}`));
    const answer = await call(server, "PUT", `/v1/topics/${topic}`, { partitionCount: 3 });
    assertMatches(bodyOf(answer), { topicId, partitionCount: 3 });
    assert.deepEqual(await logEndsOf(server, topic), [2, 0, 0]);
    assertMatches(bodyOf(await call(server, "PUT", `/v1/topics/${topic}`, {})), { partitionCount: 3 });
  },

  "PUT of fewer partitions is a conflict and changes nothing": async (server) => {
    const topic = await newTopic(server, { partitionCount: 3 });
    assertRefused(await call(server, "PUT", `/v1/topics/${topic}`, { partitionCount: 2 }), 409, "conflict");
    assert.deepEqual(await logEndsOf(server, topic), [0, 0, 0]);
  },

  "PUT of what is not allowed is bad_request, names it, and creates nothing": async (server) => {
    const topic = newName("topic");
    const bodies = [
      ['{"partitions":3}', "partitions"],
      ['{"partitionCount":0}', "partitionCount"],
      ['{"partitionCount":1.5}', "partitionCount"],
      ['{"partitionCount":1,"partitionCount":2}', "partitionCount"],
      ['{"cleanup":"sometimes"}', "cleanup"],
      ['{"retention":{"hours":1}}', "hours"],
    ] as const;
    for (const [body, named] of bodies) {
      const answer = await call(server, "PUT", `/v1/topics/${topic}`, body);
      assertRefused(answer, 400, "bad_request");
      assert.ok(answer.body.detail.includes(named), answer.body.detail);
    }
    assertRefused(await call(server, "GET", `/v1/topics/${topic}`), 404, "unknown_topic", { topic });
  },

  "GET lists every topic by name": async (server) => {
    const [one, two] = [await newTopic(server), await newTopic(server, { partitionCount: 2 })];
    const { topics: listed } = bodyOf(await call(server, "GET", "/v1/topics"));
    const names: readonly string[] = listed.map(({ topic }: { topic: string }) => topic);
    const summaryOf = (topic: string) => listed[names.indexOf(topic)];
    assertMatches(summaryOf(one), { topic: one, partitionCount: 1 });
    assertMatches(summaryOf(two), { topic: two, partitionCount: 2 });
    assert.deepEqual(Object.keys(summaryOf(one)).sort(), ["partitionCount", "topic", "topicId"]);
    assert.deepEqual(names, names.toSorted());
  },

  "GET counts records and bytes of each partition": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2 });
    await produce(server, topic, [
      { key: "k1", value: "abc", partition: 1 },
      { bytes: "AAEC", partition: 1 },
    ]);
    const { partitions } = bodyOf(await call(server, "GET", `/v1/topics/${topic}`));
    assert.deepEqual(partitions, [
      { partition: 0, logStartOffset: 0, logEndOffset: 0, records: 0, bytes: 0 },
      { partition: 1, logStartOffset: 0, logEndOffset: 2, records: 2, bytes: 10 },
    ]);
  },

  "DELETE takes the topic, and one that is created again is another from offset 0": async (server) => {
    const topic = await newTopic(server, { records: 3 });
    const { topicId } = bodyOf(await call(server, "GET", `/v1/topics/${topic}`));
    assert.equal((await call(server, "DELETE", `/v1/topics/${topic}`)).status, 204);
    assertRefused(await call(server, "GET", partitionPath(topic)), 404, "unknown_topic", { topic });
    const again = bodyOf(await call(server, "PUT", `/v1/topics/${topic}`), 201);
    assert.ok(again.topicId > topicId);
    assert.deepEqual(await produce(server, topic, [{ value: 1 }]), [{ partition: 0, offset: 0, count: 1 }]);
  },

  "one that is not there is unknown_topic, whatever is asked": async (server) => {
    const topic = newName("topic");
    const asked = [
      ["GET", `/v1/topics/${topic}`],
      ["DELETE", `/v1/topics/${topic}`],
      ["GET", partitionPath(topic)],
      ["DELETE", `${partitionPath(topic)}?before=0`],
    ] as const;
    for (const [method, path] of asked)
      assertRefused(await call(server, method, path), 404, "unknown_topic", { topic });
    const produced = await call(server, "POST", `/v1/topics/${topic}/records`, { records: [{ value: 1 }] });
    assertRefused(produced, 404, "unknown_topic", { topic });
  },

  "a name is 1 to 249 characters of A-Z a-z 0-9 . _ -": async (server) => {
    for (const name of ["a%20b", "a%2Fb", "%C3%A9", "a".repeat(250), "%2a", "a%00"])
      assertRefused(await call(server, "PUT", `/v1/topics/${name}`), 400, "bad_request");
    const longest = newName("A.b_c-9").padEnd(249, "x");
    assertMatches(bodyOf(await call(server, "PUT", `/v1/topics/${longest}`), 201), { topic: longest });
  },

  "DELETE of records moves the log start up, and offsets stay as they are": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    const answer = bodyOf(await call(server, "DELETE", `${partitionPath(topic)}?before=3`));
    assertMatches(answer, { topic, partition: 0, logStartOffset: 3, logEndOffset: 5 });
    assertMatches(await read(server, topic), { logStartOffset: 3, records: [{ offset: 3 }, { offset: 4 }] });
    const lower = bodyOf(await call(server, "DELETE", `${partitionPath(topic)}?before=1`));
    assertMatches(lower, { logStartOffset: 3 });
    bodyOf(await call(server, "DELETE", `${partitionPath(topic)}?before=5`));
    assert.deepEqual(await produce(server, topic, [{ value: 5 }]), [{ partition: 0, offset: 5, count: 1 }]);
  },

  "DELETE of records above the log end is offset_out_of_range": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    const answer = await call(server, "DELETE", `${partitionPath(topic)}?before=3`);
    const bounds = { logStartOffset: 0, logEndOffset: 2 };
    assertRefused(answer, 416, "offset_out_of_range", { found: 3, ...bounds });
    assertRefused(await call(server, "DELETE", partitionPath(topic)), 400, "bad_request");
    assertMatches(await read(server, topic), bounds);
  },

  "a partition that is not there is unknown_partition": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2 });
    const facts = { topic, partition: 2, partitionCount: 2 };
    assertRefused(await call(server, "GET", partitionPath(topic, 2)), 404, "unknown_partition", facts);
    const records = [
      { value: 1, partition: 0 },
      ...countFrom(2, 3).map((partition) => ({ value: 1, partition })),
    ];
    const produced = await call(server, "POST", `/v1/topics/${topic}/records`, { records });
    assertRefused(produced, 404, "unknown_partition", { ...facts, record: 1 });
    assert.deepEqual(await logEndsOf(server, topic), [0, 0]);
  },
});
