import { describe, expect, test } from "bun:test";
import { ON_THE_WIRE_BYTES, UnreadBytes } from "../../src/stream/unread-bytes.ts";

describe("UnreadBytes", () => {
  test("counts nothing as long as a wire may hold it, and wants no mark", () => {
    const unread = new UnreadBytes();
    unread.noteSent(ON_THE_WIRE_BYTES);
    expect([unread.bytes, unread.wantsMark]).toEqual([0, false]);
    unread.noteSent(1);
    expect([unread.bytes, unread.wantsMark]).toEqual([1, true]);
  });

  test("counts what was sent before a ping as read when its pong comes, and no more", () => {
    const unread = new UnreadBytes();
    unread.noteSent(3 * ON_THE_WIRE_BYTES);
    unread.notePing();
    unread.noteSent(2 * ON_THE_WIRE_BYTES);
    expect(unread.wantsMark).toBe(false); // one is on its way
    unread.notePong();
    expect([unread.bytes, unread.wantsMark]).toEqual([ON_THE_WIRE_BYTES, true]);
  });

  test("does not take the pong of an earlier ping for that of its mark", () => {
    const unread = new UnreadBytes();
    unread.notePing(); // the heartbeat's, with nothing before it
    unread.noteSent(3 * ON_THE_WIRE_BYTES);
    unread.notePong();
    expect([unread.bytes, unread.wantsMark]).toEqual([2 * ON_THE_WIRE_BYTES, true]);
    unread.notePing();
    unread.notePing(); // the heartbeat's, behind the mark
    unread.notePong();
    expect(unread.bytes).toBe(0);
    unread.notePong();
    expect(unread.bytes).toBe(0);
  });

  test("has no use for a pong that nobody asked for, now or later", () => {
    const unread = new UnreadBytes();
    for (let times = 0; times < 10; times += 1) unread.notePong();
    unread.noteSent(3 * ON_THE_WIRE_BYTES);
    unread.notePing();
    expect(unread.bytes).toBe(2 * ON_THE_WIRE_BYTES);
    unread.notePong();
    expect(unread.bytes).toBe(0);
  });
});
