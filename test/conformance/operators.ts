import assert from "node:assert/strict";
import { checksOf, type ServerUnderTest } from "./check.ts";
import { type Answer, assertRefused, bodyOf, call } from "./http.ts";
import { ack, ackOf, committedOf, newName, newTopic, partitionOf, produce, subscribe, trim } from "./log.ts";
import { assertMatches } from "./match.ts";

/** A group without members that stands at that offset of partition 0. */
async function groupAt(server: ServerUnderTest, topic: string, offset: number): Promise<string> {
  const group = newName("group");
  bodyOf(await commit(server, group, [{ topic, partition: 0, offset }]));
  return group;
}

function commit(server: ServerUnderTest, group: string, offsets: readonly object[]): Promise<Answer> {
  return call(server, "POST", `/v1/groups/${group}/offsets`, { offsets });
}

function reset(server: ServerUnderTest, group: string, body: object): Promise<Answer> {
  return call(server, "POST", `/v1/groups/${group}/reset`, body);
}

export const operators = checksOf("operators", {
  "GET of a group says who owns what and where it stands": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2, records: 3 });
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group, instanceId: "tab-7" });
    const { memberId } = member.subscribed;
    const body = bodyOf(await call(server, "GET", `/v1/groups/${group}`));
    const partitions = [0, 1].map((partition) => {
      return { topic, partition, generation: partitionOf(member, partition).generation };
    });
    assertMatches(body, { group, members: [{ memberId, instanceId: "tab-7", topics: [topic], partitions }] });
    assert.ok(body.members[0].leaseExpiresAt > 1_600_000_000_000);
    const stands = {
      topic,
      committedOffset: 0,
      logStartOffset: 0,
      logEndOffset: 3,
      lag: 3,
      memberId,
      metadata: null,
    };
    assertMatches(
      body.offsets,
      [0, 1].map((partition) => ({ ...stands, partition })),
    );
    const { groups } = bodyOf(await call(server, "GET", "/v1/groups"));
    const summary = groups.find((listed: { group: string }) => listed.group === group);
    assert.deepEqual(summary, { group, members: 1, lag: 6 });
  },

  "a group that is not there is unknown_group": async (server) => {
    const [group, topic] = [newName("group"), await newTopic(server)];
    assertRefused(await call(server, "GET", `/v1/groups/${group}`), 404, "unknown_group", { group });
    assertRefused(await call(server, "DELETE", `/v1/groups/${group}`), 404, "unknown_group", { group });
    const body = { topics: [{ topic }], to: "earliest" };
    assertRefused(await reset(server, group, body), 404, "unknown_group", { group });
    assertRefused(await call(server, "GET", "/v1/groups/a%20b"), 400, "bad_request");
  },

  "a commit from outside creates the group and goes forward only": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    const group = await groupAt(server, topic, 3);
    const at = (offset: number) => ({ topic, partition: 0, offset });
    assert.deepEqual(bodyOf(await commit(server, group, [at(1)])).offsets, [at(3)]);
    const above = bodyOf(await commit(server, group, [at(6)])).offsets;
    assert.deepEqual(above, [{ ...at(3), code: "offset_out_of_range" }]);
    assert.deepEqual(bodyOf(await commit(server, group, [{ ...at(5), metadata: "m" }])).offsets, [at(5)]);
    const unknown = bodyOf(await commit(server, group, [{ ...at(1), partition: 1 }])).offsets;
    assertMatches(unknown, [{ code: "unknown_partition" }]);
    assert.deepEqual(await committedOf(server, group), [5]);
  },

  "while members are live a commit from outside and a deletion are conflicts": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group });
    assertRefused(await commit(server, group, [{ topic, partition: 0, offset: 1 }]), 409, "conflict");
    assertRefused(await call(server, "DELETE", `/v1/groups/${group}`), 409, "conflict");
    assertRefused(await call(server, "DELETE", `/v1/groups/${group}/topics/${topic}`), 409, "conflict");
    member.socket.send({ type: "unsubscribe" });
    await member.socket.until("unsubscribed");
    assert.equal((await call(server, "DELETE", `/v1/groups/${group}`)).status, 204);
    assertRefused(await call(server, "GET", `/v1/groups/${group}`), 404, "unknown_group");
  },

  "a group forgets a topic that it left": async (server) => {
    const [one, two] = [await newTopic(server, { records: 1 }), await newTopic(server, { records: 1 })];
    const group = await groupAt(server, one, 1);
    bodyOf(await commit(server, group, [{ topic: two, partition: 0, offset: 1 }]));
    assert.equal((await call(server, "DELETE", `/v1/groups/${group}/topics/${one}`)).status, 204);
    const { offsets } = bodyOf(await call(server, "GET", `/v1/groups/${group}`));
    assertMatches(offsets, [{ topic: two }]);
  },

  "a reset goes to each place": async (server) => {
    const topic = await newTopic(server);
    await produce(
      server,
      topic,
      [100, 200, 300, 400].map((timestamp) => ({ value: 1, timestamp })),
    );
    const group = await groupAt(server, topic, 2);
    const places = [
      ["earliest", 0],
      ["latest", 4],
      [{ offset: 3 }, 3],
      [{ shift: -2 }, 1],
      [{ shift: -9 }, 0],
      [{ timestamp: 250 }, 2],
      ["current", 2],
      [{ ago: 60_000 }, 4],
    ] as const;
    let from = 2;
    for (const [to, expected] of places) {
      const answer = bodyOf(
        await reset(server, group, { topics: [{ topic, partitions: [0] }], to, reason: "check" }),
      );
      assert.deepEqual(answer, { plan: [{ topic, partition: 0, from, to: expected }], applied: true });
      from = expected;
    }
    assert.deepEqual(await committedOf(server, group), [4]);
  },

  "a reset that cannot be is refused and moves nothing": async (server) => {
    const topic = await newTopic(server, { partitionCount: 2, records: 5 });
    await trim(server, topic, 1);
    const group = await groupAt(server, topic, 2);
    const to = (place: unknown, more: object = {}) =>
      reset(server, group, { topics: [{ topic, ...more }], to: place });
    assertRefused(await to({ offset: 0 }), 416, "offset_out_of_range");
    assertRefused(await to({ offset: 6 }), 416, "offset_out_of_range");
    assertRefused(await to({ shift: 1 }), 409, "no_committed_offset");
    assertRefused(await to("earliest", { partitions: [2] }), 404, "unknown_partition");
    assertRefused(await to("first"), 400, "bad_request");
    assertRefused(
      await reset(server, group, { topics: [{ topic: newName("topic") }], to: "latest" }),
      404,
      "unknown_topic",
    );
    assert.deepEqual((await committedOf(server, group)).slice(0, 1), [2]);
  },

  "a dry run does nothing, and its plan is applied exactly, once": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    const group = await groupAt(server, topic, 4);
    const dry = bodyOf(await reset(server, group, { topics: [{ topic }], to: { shift: -3 }, dryRun: true }));
    const { plan } = dry;
    assert.deepEqual(dry, { plan: [{ topic, partition: 0, from: 4, to: 1 }], applied: false });
    assert.deepEqual(await committedOf(server, group), [4]);
    assert.deepEqual(bodyOf(await reset(server, group, { plan })), { plan, applied: true });
    assert.deepEqual(await committedOf(server, group), [1]);
    const facts = { topic, partition: 0, expected: 4, found: 1 };
    assertRefused(await reset(server, group, { plan }), 409, "conflict", facts);
  },

  "a live group streams on from where a reset has put it": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group });
    const { socket } = member;
    const frame = await socket.expect("records");
    await ack(socket, ackOf(frame));
    const answer = bodyOf(await reset(server, group, { topics: [{ topic }], to: { offset: 3 } }));
    assert.deepEqual(answer, { plan: [{ topic, partition: 0, from: 5, to: 3 }], applied: true });
    const moved = partitionOf(await socket.expect("assigned"));
    assertMatches(moved, { position: 3, committedOffset: 3 });
    assert.ok(moved.generation > frame.generation);
    assertMatches(await socket.records(2), [{ offset: 3 }, { offset: 4 }]);
    assertMatches(await ack(socket, ackOf(frame)), [{ offset: 3, code: "fenced_generation" }]);
  },

  "a plan is applied on a live group too": async (server) => {
    const topic = await newTopic(server, { records: 5 });
    const group = newName("group");
    using member = await subscribe(server, { topics: [topic], group, reset: "latest" });
    const wrong = [{ topic, partition: 0, from: 4, to: 1 }];
    assertRefused(await reset(server, group, { plan: wrong }), 409, "conflict", { expected: 4, found: 5 });
    const plan = [{ topic, partition: 0, from: 5, to: 1 }];
    bodyOf(await reset(server, group, { plan }));
    assertMatches((await member.socket.expect("assigned")).partitions, [{ position: 1 }]);
    assertMatches(await member.socket.records(4), [
      { offset: 1 },
      { offset: 2 },
      { offset: 3 },
      { offset: 4 },
    ]);
  },
});
