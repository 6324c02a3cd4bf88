import assert from "node:assert/strict";
import { checksOf } from "./check.ts";
import { assertRefused, bodyOf, call } from "./http.ts";
import { newTopic, produce, read, recordsPath, untilTopic } from "./log.ts";
import { assertMatches, countFrom } from "./match.ts";

export const life = checksOf("retention and compaction", {
  "settings are what was set: what is absent stays, null is the default": async (server) => {
    const topic = await newTopic(server, { settings: { retention: { ms: 60_000, bytes: 1_000_000 } } });
    const put = async (settings: object) =>
      bodyOf(await call(server, "PUT", `/v1/topics/${topic}`, settings));
    const deepMatch = async (settings: object, retention: unknown) =>
      assert.deepEqual((await put(settings)).retention, retention);
    await deepMatch({}, { ms: 60_000, bytes: 1_000_000 });
    await deepMatch({ retention: { records: 10 } }, { ms: 60_000, bytes: 1_000_000, records: 10 });
    await deepMatch({ retention: { ms: null, records: null } }, { bytes: 1_000_000 });
    await deepMatch({ retention: null }, null);
    const compacted = await put({ cleanup: "compact", compaction: { minLagMs: 5, tombstoneMs: 7 } });
    assertMatches(compacted, { cleanup: "compact", compaction: { minLagMs: 5, tombstoneMs: 7 } });
    assertMatches(await put({ cleanup: null, compaction: null }), { cleanup: "delete", compaction: null });
  },

  "settings that are not allowed are bad_request": async (server) => {
    const topic = await newTopic(server);
    const wrong = [
      { retention: { ms: 0 } },
      { retention: { records: -1 } },
      { retention: { bytes: "1k" } },
      { retention: 60_000 },
      { cleanup: "compact,delete" },
      { compaction: { minLagMs: -1 } },
    ];
    for (const settings of wrong)
      assertRefused(await call(server, "PUT", `/v1/topics/${topic}`, settings), 400, "bad_request");
    assertMatches(bodyOf(await call(server, "GET", `/v1/topics/${topic}`)), {
      retention: null,
      cleanup: "delete",
    });
  },

  "retention by records deletes the oldest and moves the log start": async (server) => {
    const topic = await newTopic(server, { records: 20 });
    bodyOf(await call(server, "PUT", `/v1/topics/${topic}`, { retention: { records: 5 } }));
    await untilTopic(server, topic, ({ logStartOffset }) => logStartOffset === 15);
    const left = countFrom(15, 20).map((offset) => ({ offset, value: offset }));
    assertMatches(await read(server, topic), { records: left, logStartOffset: 15, logEndOffset: 20 });
  },

  "retention by age takes what is old enough, and offsets go on": async (server) => {
    const topic = await newTopic(server, { records: 3, settings: { retention: { ms: 1 } } });
    await untilTopic(server, topic, ({ logStartOffset }) => logStartOffset === 3);
    assert.deepEqual(await produce(server, topic, [{ value: 1 }]), [{ partition: 0, offset: 3, count: 1 }]);
  },

  "compaction leaves the newest record of each key at its offset": async (server) => {
    const topic = await newTopic(server, { settings: { cleanup: "compact" } });
    const keys = ["a", "b", "a", "c", "b", "a"];
    await produce(
      server,
      topic,
      keys.map((key, value) => ({ key, value })),
    );
    await untilTopic(server, topic, ({ records }) => records === 3);
    const { records, logStartOffset, logEndOffset } = await read(server, topic);
    assertMatches(records, [
      { offset: 3, key: "c", value: 3 },
      { offset: 4, key: "b", value: 4 },
      { offset: 5, key: "a", value: 5 },
    ]);
    assert.deepEqual([logStartOffset, logEndOffset], [0, 6]);
  },

  "a compacted topic wants a key of every record": async (server) => {
    const topic = await newTopic(server, { settings: { cleanup: "compact" } });
    const keyless = { records: [{ key: "a", value: 1 }, { value: 2 }] };
    assertRefused(await call(server, "POST", recordsPath(topic), keyless), 400, "bad_request", { record: 1 });
    const other = await newTopic(server, { records: 1 });
    assertRefused(await call(server, "PUT", `/v1/topics/${other}`, { cleanup: "compact" }), 409, "conflict");
  },
});
