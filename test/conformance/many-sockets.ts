import assert from "node:assert/strict";
import { checksOf } from "./check.ts";
import { ackOf, newName, newTopic, produce, subscribe } from "./log.ts";
import { assertMatches, countFrom } from "./match.ts";
import { type FrameOf, Socket } from "./socket.ts";

const SOCKETS = 50;
/** Of 4 MB each: more than a machine keeps for a client that does not read. */
const READERS_OF_ONE = 8;

export const manySockets = checksOf("many sockets", {
  "50 readers of one topic each get every record, in order": async (server) => {
    const topic = await newTopic(server, { records: 10 });
    const opening = countFrom(0, SOCKETS).map(() => subscribe(server, { topics: [topic], from: "earliest" }));
    const readers = await Promise.all(opening);
    using sockets = new DisposableStack();
    for (const reader of readers) sockets.use(reader);
    for (const n of countFrom(0, 5))
      await produce(
        server,
        topic,
        countFrom(0, 4).map((value) => ({ value: [n, value] })),
      );
    const all = countFrom(0, 30).map((offset) => ({ offset }));
    await Promise.all(readers.map(async ({ socket }) => assertMatches(await socket.records(30), all)));
  },

  "50 groups of one topic each get and acknowledge every record": async (server) => {
    const topic = await newTopic(server);
    const opening = countFrom(0, SOCKETS).map(() =>
      subscribe(server, { topics: [topic], group: newName("group") }),
    );
    const members = await Promise.all(opening);
    using sockets = new DisposableStack();
    for (const member of members) sockets.use(member);
    await produce(
      server,
      topic,
      countFrom(0, 20).map((value) => ({ value })),
    );
    await Promise.all(
      members.map(async ({ socket }) => {
        let last: FrameOf<"records"> | undefined;
        for (let count = 0; count < 20; count += last.records.length) last = await socket.expect("records");
        assert.ok(last);
        socket.send({ type: "ack", offsets: [ackOf(last)] });
        assertMatches((await socket.expect("acked")).offsets, [{ offset: 20 }]);
      }),
    );
  },

  "a client that is slower than the server is sent everything": async (server) => {
    const topic = await newTopic(server);
    const value = "x".repeat(99_000);
    await produce(
      server,
      topic,
      countFrom(0, 40).map(() => ({ value })),
    );
    using socket = await Socket.open(server);
    for (const n of countFrom(0, READERS_OF_ONE)) {
      const window = { bytes: 4_194_304 };
      socket.send({ type: "subscribe", subscription: `s${n}`, topics: [topic], from: "earliest", window });
    }
    const nexts = new Map<string, number>();
    while ([...nexts.values()].filter((next) => next === 40).length < READERS_OF_ONE) {
      const frame = await socket.next();
      if (frame.type !== "records") continue;
      assert.equal(frame.records[0]?.offset, nexts.get(frame.subscription) ?? 0);
      nexts.set(frame.subscription, frame.next);
      dawdle(socket.text);
    }
  },
});

/** Keeps the event loop from reading the socket, so that what is sent piles up before it. */
function dawdle(text: string): void {
  for (const _ of countFrom(0, 10)) JSON.parse(text);
}
