import { describe, expect, test } from "bun:test";
import { findCompactionFaults, type SentRecord } from "./compaction-rules.ts";

const TOMBSTONE_MS = 400;

/** Appended to partition 0 from offset 0 on, one every ten milliseconds: `a1` is a record of `a`, `a2!` a tombstone. */
function sentAll(...names: readonly string[]): readonly SentRecord[] {
  return names.map((name, offset) => ({
    ...recordOf(name),
    askedAtMs: offset * 10,
    answer: { atMs: offset * 10 + 5, place: { partition: 0, offset } },
  }));
}

function unanswered(name: string, askedAtMs: number): SentRecord {
  return { ...recordOf(name), askedAtMs };
}

function recordOf(name: string) {
  return { key: name.charAt(0), id: name, isTombstone: name.endsWith("!") };
}

/** `a1@0` by name and offset. */
function lookAt(
  atMs: number,
  seen: string,
  { end, start = 0, isAtRest = false }: { end: number; start?: number; isAtRest?: boolean },
) {
  const records = seen
    .split(" ")
    .filter((each) => each !== "")
    .map((each) => each.split("@"))
    .map(([name = "", offset]) => ({ ...recordOf(name), offset: Number(offset) }));
  const log = { topic: "compacted", partition: 0, logStartOffset: start, logEndOffset: end, records };
  return { fromMs: atMs - 1, atMs, isAtRest, compacted: [log] };
}

type LookAt = ReturnType<typeof lookAt>;

function judge(sent: readonly SentRecord[], ...looks: readonly LookAt[]): readonly string[] {
  return findCompactionFaults({ sent, looks, tombstoneMs: TOMBSTONE_MS });
}

const SENT = sentAll("a1", "b1", "a2", "b2!", "a3", "c1");
const REST = { end: 6, isAtRest: true };

describe("findCompactionFaults() has nothing to say of", () => {
  test("a topic that is compacted step by step, until its tombstones are gone", () => {
    const looks = [
      lookAt(100, "a1@0 b1@1 a2@2 b2!@3 a3@4 c1@5", { end: 6 }),
      lookAt(200, "a2@2 b2!@3 a3@4 c1@5", { end: 6 }),
      lookAt(300, "b2!@3 a3@4 c1@5", { end: 6 }),
      lookAt(500, "a3@4 c1@5", REST),
    ];
    expect(judge(SENT, ...looks)).toEqual([]);
  });

  test("a record that was answered while somebody looked", () => {
    expect(judge(SENT, lookAt(55, "a1@0 b1@1 a2@2 b2!@3 a3@4", { end: 5 }))).toEqual([]);
  });

  test("a newer record of which nobody knows, and a tombstone of which nobody knows, when it is old", () => {
    const sent = [...SENT, unanswered("a4", 60), unanswered("c2!", 60)];
    expect(judge(sent, lookAt(600, "a4@7", { end: 8, isAtRest: true }))).toEqual([]);
    expect(judge(sent, lookAt(300, "b2!@3 c2!@6 a4@7", { end: 8 }))).toEqual([]);
  });

  test("a last record that is a tombstone, however old", () => {
    const sent = sentAll("a1", "b1", "a2!");
    expect(judge(sent, lookAt(9_000, "b1@1 a2!@2", { end: 3, isAtRest: true }))).toEqual([]);
  });
});

describe("findCompactionFaults() finds", () => {
  test("a newest record that is lost", () => {
    expect(judge(SENT, lookAt(100, "b2!@3 c1@5", { end: 6 }))).toEqual([
      "a3, the newest record of a, is not at 0@4",
    ]);
  });

  test("a last record that is lost", () => {
    const sent = [...SENT, unanswered("c2", 60)];
    expect(judge(sent, lookAt(500, "a3@4 c1@5", { end: 7 }))).toEqual([
      "partition 0 ends at 7, its last record is 5",
    ]);
    expect(judge(sentAll("a1", "a2!"), lookAt(900, "", { end: 2 }))).toEqual([
      "partition 0 ends at 2, its last record is undefined",
    ]);
  });

  test("an offset that has changed", () => {
    expect(judge(SENT, lookAt(100, "b2!@2 a3@4 c1@5", { end: 6 }))).toContain(
      "b2! was at 0@3 and is at 0@2: its offset has changed",
    );
    const sent = [...SENT, unanswered("d1", 60)];
    const looks = [lookAt(500, "a3@4 c1@5 d1@6", { end: 7 }), lookAt(600, "a3@4 c1@5 d1@7", { end: 8 })];
    expect(judge(sent, ...looks)).toContain("d1 was at 0@6 and is at 0@7: its offset has changed");
  });

  test("an offset that was given again", () => {
    const sent = [...SENT, unanswered("b3", 60)];
    expect(judge(sent, lookAt(500, "b3@3 a3@4 c1@5", { end: 6 }))).toEqual([
      "0@3 was b2! and is b3: its offset was given again",
    ]);
  });

  test("an older record that has outlived a newer one", () => {
    expect(judge(SENT, lookAt(100, "a2@2 b2!@3 c1@5", { end: 6 }))).toEqual([
      "a3, the newest record of a, is not at 0@4, and the older a2 is there",
    ]);
    expect(judge(SENT, lookAt(900, "b1@1 a3@4 c1@5", REST))).toEqual([
      "b2!, the newest record of b, is not at 0@3, and the older b1 is there",
    ]);
  });

  test("a record that was gone and is back", () => {
    const looks = [
      lookAt(100, "b2!@3 a3@4 c1@5", { end: 6 }),
      lookAt(200, "a1@0 b2!@3 a3@4 c1@5", { end: 6 }),
    ];
    expect(judge(SENT, ...looks)).toEqual(["0@0 was gone and is back: a1"]);
  });

  test("a tombstone that is gone before its time", () => {
    expect(judge(SENT, lookAt(420, "a3@4 c1@5", { end: 6 }))).toEqual([
      "b2!, the newest record of b, is not at 0@3",
    ]);
    const sent = [...SENT, unanswered("c2!", 200)];
    expect(judge(sent, lookAt(550, "a3@4 d1@6", { end: 7 })).slice(-1)).toEqual([
      "c1, the newest record of c, is not at 0@5",
    ]);
  });

  test("at rest two records of a key, or an old tombstone", () => {
    expect(judge(SENT, lookAt(900, "a2@2 a3@4 c1@5", REST))).toEqual(["at rest a has 2 records, 0@2,0@4"]);
    expect(judge(SENT, lookAt(900, "b2!@3 a3@4 c1@5", REST))).toEqual([
      "at rest the tombstone b2! is still at 0@3",
    ]);
  });

  test("what nobody has sent, what was refused, and what has another key or value", () => {
    const refused: SentRecord = { ...unanswered("d1", 60), answer: "refused" };
    const rest = "a3@4 c1@5";
    expect(judge([...SENT, refused], lookAt(500, `${rest} d1@6`, { end: 7 }))).toEqual([
      "0@6 is d1, which was refused",
    ]);
    expect(judge(SENT, lookAt(500, `${rest} x9@6`, { end: 7 }))).toEqual([
      "0@6 is x9 of x, which nobody has sent",
    ]);
    const look = lookAt(500, rest, { end: 6 });
    const compacted = look.compacted.map((log) => ({
      ...log,
      records: log.records.map((each) => ({ ...each, key: "b" })),
    }));
    expect(judge(SENT, { ...look, compacted })).toContain("0@4 is a3 of b, which nobody has sent");
  });

  test("offsets that do not rise, and bounds that move back or, at the start, at all", () => {
    expect(judge(SENT, lookAt(500, "c1@5 a3@4 c1@5", { end: 6 }))).toEqual([
      "the offsets of partition 0 do not rise: 5,4,5",
    ]);
    const looks = [lookAt(500, "a3@4 c1@5", { end: 6 }), lookAt(600, "a3@4 c1@5", { end: 6, start: 4 })];
    expect(judge(SENT, ...looks)).toEqual(["partition 0 starts at 4, not 0"]);
    const shorter = [lookAt(500, "a3@4 c1@5", { end: 6 }), lookAt(600, "a3@4", { end: 5 })];
    expect(judge(SENT, ...shorter)).toContain("partition 0 ends at 5 again");
  });
});
