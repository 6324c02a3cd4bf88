import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Problem } from "../../src/core/problem.ts";
import type { ErrorCode } from "../../src/protocol/codes.ts";
import { PENDING_WRITE_BYTES_MAX, WRITE_DEADLINE_MS } from "../../src/protocol/limits.ts";
import type { Append } from "../../src/store/appends.ts";
import {
  type Db,
  DbError,
  type DbFailure,
  type Rows,
  type Statement,
  type WriteOptions,
} from "../../src/store/db.ts";
import type { Operation } from "../../src/store/operations.ts";
import { WriteQueue } from "../../src/store/write-queue.ts";
import { traceOf } from "../support/database.ts";
import { FakeTime, fakeChance, turnOfTheLoop } from "../support/fake-time.ts";

const MIB = 1024 * 1024;
const FLUSH_OPERATIONS_MAX = 512;
const FLUSH_BYTES_MAX = 2 * MIB;

/** A database of names: a statement is written by its text, and its row says it again. */
class ScriptedDb implements Db {
  readonly durability = "fsync";
  readonly isShared = true;
  readonly readsAtOnceMax = 1;
  /** The texts of each write that was asked for, whatever came of it. */
  readonly asked: (readonly string[])[] = [];
  /** What was said beside each. */
  readonly options: (WriteOptions | undefined)[] = [];
  /** What is durable, in order. */
  readonly committed: string[] = [];
  /** What becomes of a write; it is committed unless this throws. */
  onWrite: (texts: readonly string[]) => Promise<void> | void = () => {};

  async write(statements: readonly Statement[], options?: WriteOptions): Promise<readonly Rows[]> {
    const texts = statements.map(({ sql }) => sql);
    this.asked.push(texts);
    this.options.push(options);
    await this.onWrite(texts);
    this.committed.push(...texts);
    return texts.map((said) => [{ said }]);
  }

  async read(): Promise<Rows> {
    throw new Error("a queue that writes does not read");
  }

  async script(): Promise<void> {
    throw new Error("a queue that writes runs no scripts");
  }

  async close(): Promise<void> {}
}

interface OperationOptions {
  readonly bytes?: number;
  readonly statements?: number;
  readonly settle?: () => void;
  readonly op?: number;
  readonly isAlone?: boolean;
  readonly isPatient?: boolean;
  readonly appends?: readonly Append[];
  readonly afterLostAnswer?: Operation<readonly unknown[]>["afterLostAnswer"] | undefined;
}

/** An operation that settles to what its statements said. */
function operation(name: string, options: OperationOptions = {}): Operation<readonly unknown[]> {
  const { bytes = 1, statements = 1, settle, op, appends, afterLostAnswer } = options;
  const { isAlone = false, isPatient = false } = options;
  const texts = Array.from({ length: statements }, (_, i) => (statements === 1 ? name : `${name}.${i}`));
  return {
    statements: texts.map((sql) => ({ sql })),
    bytes,
    isAlone,
    isPatient,
    ...(op !== undefined && { op }),
    ...(appends && { appends }),
    ...(afterLostAnswer && { afterLostAnswer }),
    settle: (results) => {
      settle?.();
      return results.map((rows) => rows[0]?.said);
    },
  };
}

function setUp(random?: () => number) {
  const db = new ScriptedDb();
  const time = new FakeTime();
  const log: { event: string; facts?: unknown }[] = [];
  const reading = { isBusy: false };
  const queue = new WriteQueue({
    isReading: () => reading.isBusy,
    db,
    scheduler: time,
    chance: fakeChance({ random }),
    log: (event, facts) => log.push({ event, facts }),
  });
  /** `name: outcome` of each operation, in the order in which they were settled. */
  const settled: string[] = [];
  const submit = (name: string, options?: OperationOptions): void => {
    queue.submit(operation(name, options)).then(
      (said) => settled.push(`${name}: ${said}`),
      (error) => settled.push(`${name}: ${error instanceof Problem ? error.code : error}`),
    );
  };
  const submitAll = (...names: readonly string[]): void => {
    for (const name of names) submit(name);
  };
  return { db, time, log, queue, settled, submit, submitAll, reading };
}

const failed = (failure: DbFailure) => new DbError(failure, `scripted: ${failure}`);

/** The first writes fail like this, the later ones do not. */
function failFirst(db: ScriptedDb, ...errors: readonly Error[]): void {
  const left = [...errors];
  db.onWrite = () => {
    const error = left.shift();
    if (error) throw error;
  };
}

/** Every write waits until it is let go. */
function hold(db: ScriptedDb): { release(): void } {
  const waiting: (() => void)[] = [];
  db.onWrite = () => new Promise<void>((resolve) => waiting.push(resolve));
  return { release: () => waiting.shift()?.() };
}

/** For what is rejected at once or not at all. */
async function codeOf(promise: Promise<unknown>): Promise<ErrorCode | "resolved"> {
  return promise.then(
    () => "resolved" as const,
    (error) => {
      if (error instanceof Problem) return error.code;
      throw error;
    },
  );
}

describe("WriteQueue.submit()", () => {
  test("settles each operation with the rows of its own statements", async () => {
    const { db, time, settled, submit } = setUp();
    submit("a", { statements: 2 });
    submit("b");
    submit("c", { statements: 3 });
    await time.settle();
    expect(settled).toEqual(["a: a.0,a.1", "b: b", "c: c.0,c.1,c.2"]);
    expect(db.asked).toEqual([["a.0", "a.1", "b", "c.0", "c.1", "c.2"]]);
  });

  test("writes what comes in one turn as one transaction", async () => {
    const { db, time, submitAll } = setUp();
    submitAll("a", "b", "c");
    expect(db.asked).toEqual([]);
    await time.settle();
    expect(db.asked).toEqual([["a", "b", "c"]]);
  });

  test("writes nothing and sets no timer while nothing is submitted", async () => {
    const { db, time, submit } = setUp();
    await time.advance(60_000);
    expect(db.asked).toEqual([]);
    submit("a");
    await time.advance(60_000);
    expect(db.asked).toEqual([["a"]]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("gathers what comes while a flush is being written into one next flush", async () => {
    const { db, time, settled, submit, submitAll } = setUp();
    const { release } = hold(db);
    submit("a");
    await time.settle();
    submitAll("b", "c");
    await time.settle();
    submit("d");
    await time.settle();
    expect(db.asked).toEqual([["a"]]);
    release();
    await time.settle();
    expect(db.asked).toEqual([["a"], ["b", "c", "d"]]);
    expect(settled).toEqual(["a: a"]);
    release();
    await time.settle();
    expect(settled).toEqual(["a: a", "b: b", "c: c", "d: d"]);
  });

  test("settles nothing before it is durable", async () => {
    const { db, time, settled, submit } = setUp();
    const { release } = hold(db);
    let hasSettled = false;
    submit("a", {
      settle: () => {
        hasSettled = true;
        expect(db.committed).toEqual(["a"]);
      },
    });
    await time.settle();
    expect(hasSettled).toBe(false);
    release();
    await time.settle();
    expect(hasSettled).toBe(true);
    expect(settled).toEqual(["a: a"]);
  });

  test("gives an operation the Problem that its settle throws, and its neighbours their results", async () => {
    const { db, time, settled, submit } = setUp();
    submit("a");
    submit("b", {
      settle: () => {
        throw new Problem("conflict", "not the one that was expected");
      },
    });
    submit("c");
    await time.settle();
    expect(settled).toEqual(["a: a", "b: conflict", "c: c"]);
    expect(db.asked).toHaveLength(1);
  });

  test("gives an operation the defect of its settle, and its neighbours their results", async () => {
    const { time, settled, submit } = setUp();
    submit("a", {
      settle: () => {
        throw new TypeError("a defect");
      },
    });
    submit("b", {
      settle: () => {
        throw "not even an Error";
      },
    });
    submit("c");
    await time.settle();
    expect(settled).toEqual(["a: TypeError: a defect", "b: Error: not even an Error", "c: c"]);
  });

  test("writes at most 512 operations in one flush", async () => {
    const { db, time, submit } = setUp();
    for (let i = 0; i < 2 * FLUSH_OPERATIONS_MAX + 1; i += 1) submit(`op ${i}`);
    await time.settle();
    expect(db.asked.map(({ length }) => length)).toEqual([FLUSH_OPERATIONS_MAX, FLUSH_OPERATIONS_MAX, 1]);
  });

  test.each([
    { bytes: [MIB, MIB], flushes: ["a b"], what: "2 MiB in one flush" },
    { bytes: [MIB, MIB + 1], flushes: ["a", "b"], what: "one byte more in two" },
    { bytes: [MIB, MIB, 0], flushes: ["a b c"], what: "what has no size with a flush that is full" },
    { bytes: [3 * MIB, 1], flushes: ["a", "b"], what: "an operation larger than a flush alone" },
    { bytes: [1, 3 * MIB, 1], flushes: ["a", "b", "c"], what: "a large operation in its place" },
  ])("writes $what", async ({ bytes, flushes }) => {
    expect(FLUSH_BYTES_MAX).toBe(2 * MIB);
    const { db, time, submit } = setUp();
    for (const [i, size] of bytes.entries()) submit("abc".charAt(i), { bytes: size });
    await time.settle();
    expect(db.asked.map((texts) => texts.join(" "))).toEqual([...flushes]);
  });
});

test("WriteQueue.nextOp() never gives a number twice", () => {
  const { queue } = setUp();
  const ops = Array.from({ length: 1_000 }, () => queue.nextOp());
  expect(new Set(ops).size).toBe(ops.length);
});

describe("WriteQueue, when a flush fails", () => {
  /** Every write that holds this text is refused, as malformed JSON would be. */
  function refuse(db: ScriptedDb, ...guilty: readonly string[]): void {
    db.onWrite = (texts) => {
      if (texts.some((text) => guilty.includes(text))) throw failed("rejected");
    };
  }

  test("as rejected, repeats its operations one by one and refuses only the guilty one", async () => {
    const { db, time, settled, submitAll } = setUp();
    refuse(db, "b");
    submitAll("a", "b", "c");
    await time.settle();
    expect(db.asked).toEqual([["a", "b", "c"], ["a"], ["b"], ["c"]]);
    expect(db.committed).toEqual(["a", "c"]);
    expect(settled).toEqual(["a: a", "b: internal", "c: c"]);
  });

  test("as rejected, keeps the order when every second operation is guilty", async () => {
    const { db, time, settled, submitAll } = setUp();
    refuse(db, "a", "c", "e");
    submitAll("a", "b", "c", "d", "e");
    await time.settle();
    expect(db.committed).toEqual(["b", "d"]);
    expect(settled).toEqual(["a: internal", "b: b", "c: internal", "d: d", "e: internal"]);
  });

  test("as rejected, writes what came in the meantime together again", async () => {
    const { db, time, settled, submitAll } = setUp();
    let writes = 0;
    db.onWrite = (texts) => {
      writes += 1;
      if (writes === 1) submitAll("c", "d", "e");
      if (texts.includes("a")) throw failed("rejected");
    };
    submitAll("a", "b");
    await time.settle();
    expect(db.asked).toEqual([["a", "b"], ["a"], ["b"], ["c", "d", "e"]]);
    expect(settled).toEqual(["a: internal", "b: b", "c: c", "d: d", "e: e"]);
  });

  test("as rejected and alone, is not repeated", async () => {
    const { db, time, settled, submit } = setUp();
    refuse(db, "a");
    submit("a");
    await time.settle();
    expect(db.asked).toEqual([["a"]]);
    expect(settled).toEqual(["a: internal"]);
  });

  test("as rejected and is busy while it is repeated, still refuses only the guilty one", async () => {
    const { db, time, settled, submitAll } = setUp();
    const outcomes = [failed("rejected"), failed("busy"), undefined, failed("busy"), failed("rejected")];
    db.onWrite = () => {
      const error = outcomes.shift();
      if (error) throw error;
    };
    submitAll("a", "b", "c");
    await time.advance(1_000);
    expect(db.asked).toEqual([["a", "b", "c"], ["a"], ["a"], ["b"], ["b"], ["c"]]);
    expect(settled).toEqual(["a: a", "b: internal", "c: c"]);
  });

  test.each([
    { failure: "full", code: "storage_full" },
    { failure: "io", code: "unavailable" },
    { failure: "rejected", code: "internal" },
    { failure: "unknown", code: "outcome_unknown" },
  ] as const)("as $failure and alone, says $code and goes on with the next", async ({ failure, code }) => {
    const { db, time, log, settled, submit } = setUp();
    failFirst(db, failed(failure));
    submit("a");
    await time.settle();
    submit("b");
    await time.settle();
    expect(settled).toEqual([`a: ${code}`, "b: b"]);
    expect(db.asked).toEqual([["a"], ["b"]]);
    expect(log).toEqual([{ event: "write failed", facts: expect.objectContaining({ failure }) }]);
  });

  test("as full, writes those that there is room for", async () => {
    const { db, time, settled, submitAll } = setUp();
    failFirst(db, failed("full"), failed("full"));
    submitAll("a", "b", "c");
    await time.settle();
    expect(db.asked).toEqual([["a", "b", "c"], ["a"], ["b"], ["c"]]);
    expect(settled).toEqual(["a: storage_full", "b: b", "c: c"]);
  });

  test.each([
    ["as unknown", failed("unknown")],
    ["with something else than a DbError", new TypeError("a defect")],
  ])("%s, says outcome_unknown to all of it and repeats none", async (_, error) => {
    const { db, time, settled, submitAll } = setUp();
    failFirst(db, error);
    submitAll("a", "b", "c");
    await time.settle();
    submitAll("d", "e");
    await time.settle();
    expect(db.asked).toEqual([
      ["a", "b", "c"],
      ["d", "e"],
    ]);
    expect(settled).toEqual([
      "a: outcome_unknown",
      "b: outcome_unknown",
      "c: outcome_unknown",
      "d: d",
      "e: e",
    ]);
  });

  test("as unknown while suspects are repeated, says so to that one alone", async () => {
    const { db, time, settled, submitAll } = setUp();
    failFirst(db, failed("rejected"), failed("unknown"));
    submitAll("a", "b", "c");
    await time.settle();
    expect(settled).toEqual(["a: outcome_unknown", "b: b", "c: c"]);
  });
});

describe("WriteQueue, when a flush was written and its answer is lost", () => {
  const repeat = { afterLostAnswer: "repeat" } as const;
  /** Settles to the log end after its append in each partition that it has appended to. */
  const append = (...appends: readonly [partitionId: number, count: number][]): OperationOptions => ({
    appends: appends.map(([partitionId, count]) => ({ partitionId, schemaVersion: 0, count })),
    afterLostAnswer: (logEnds) => [[...logEnds].map(([partitionId, end]) => `${partitionId}@${end}`)],
  });
  const unanswered = (logEnds: readonly (readonly [partitionId: number, logEnd: number])[] = []) =>
    new DbError("unanswered", "scripted: unanswered", undefined, traceOf(new Map(logEnds)));

  /** The first writes are committed and fail like this, the later ones do not. */
  function loseFirst(db: ScriptedDb, ...errors: readonly DbError[]): void {
    const left = [...errors];
    db.onWrite = (texts) => {
      const error = left.shift();
      if (!error) return;
      db.committed.push(...texts);
      throw error;
    };
  }

  test("repeats what can be, before all others, and settles it with the rows that it brings then", async () => {
    const { db, time, log, settled, submit, submitAll } = setUp();
    loseFirst(db, unanswered());
    submit("a", repeat);
    submit("b", { ...repeat, statements: 2 });
    await turnOfTheLoop(); // the flush is on its way
    submitAll("c", "d");
    await time.settle();
    expect(db.asked[0]).toEqual(["a", "b.0", "b.1"]);
    expect(db.asked.slice(1).flat()).toEqual(["a", "b.0", "b.1", "c", "d"]);
    expect(settled).toEqual(["a: a", "b: b.0,b.1", "c: c", "d: d"]);
    expect(log).toEqual([
      { event: "write failed", facts: expect.objectContaining({ failure: "unanswered" }) },
    ]);
  });

  test("says outcome_unknown to what cannot be repeated, and spoils no neighbour", async () => {
    const { db, time, settled, submit } = setUp();
    loseFirst(db, unanswered([[1, 9]]));
    submit("a");
    submit("b", append([1, 4]));
    submit("c", repeat);
    submit("d");
    await time.settle();
    expect(db.asked.slice(1)).toEqual([["c"]]);
    expect(settled.toSorted()).toEqual(["a: outcome_unknown", "b: 1@9", "c: c", "d: outcome_unknown"]);
  });

  test("settles appends by the log ends, walking back from the end", async () => {
    const { db, time, settled, submit } = setUp();
    loseFirst(
      db,
      unanswered([
        [1, 100],
        [2, 50],
      ]),
    );
    submit("a", append([1, 3]));
    submit("b", append([1, 5], [2, 10]));
    submit("c", { ...repeat });
    submit("d", append([2, 1]));
    submit("e", append([1, 7]));
    await time.settle();
    expect(db.asked).toHaveLength(2);
    expect(settled).toEqual(["a: 1@88", "b: 1@93,2@49", "d: 2@50", "e: 1@100", "c: c"]);
  });

  test("walks back over appends that are outcome_unknown or repeated themselves", async () => {
    const { db, time, settled, submit } = setUp();
    loseFirst(db, unanswered([[1, 100]]));
    const counted = { appends: [{ partitionId: 1, schemaVersion: 0, count: 10 }] };
    submit("a", append([1, 1]));
    submit("b", counted);
    submit("c", append([1, 1]));
    await time.settle();
    expect(settled).toEqual(["a: 1@89", "b: outcome_unknown", "c: 1@100"]);
  });

  test("says unavailable to what its condition has refused, and counts nothing of it", async () => {
    const { db, time, settled, submit } = setUp();
    const trace = traceOf(new Map([[1, 100]]));
    loseFirst(db, new DbError("unanswered", "scripted", undefined, { ...trace, refusedOps: new Set([7]) }));
    submit("a", append([1, 1]));
    submit("b", { ...append([1, 10]), op: 7 });
    submit("c", { ...append([1, 2]), op: 8 });
    await time.settle();
    expect(db.asked).toHaveLength(1);
    expect(settled.toSorted()).toEqual(["a: 1@98", "b: unavailable", "c: 1@100"]);
  });

  test("counts nothing of what was checked against another schema", async () => {
    const { db, time, settled, submit } = setUp();
    const partitions = new Map([[1, { logEndOffset: 100, schemaVersion: 2 }]]);
    loseFirst(db, new DbError("unanswered", "scripted", undefined, { partitions, refusedOps: new Set() }));
    const checkedAgainst = (schemaVersion: number) => ({
      ...append([1, 5]),
      appends: [{ partitionId: 1, schemaVersion, count: 5 }],
    });
    submit("a", checkedAgainst(2));
    submit("b", checkedAgainst(1));
    submit("c", checkedAgainst(2));
    await time.settle();
    expect(settled).toEqual(["a: 1@95", "b: ", "c: 1@100"]);
  });

  test("knows nothing of a partition that is gone", async () => {
    const { db, time, settled, submit } = setUp();
    loseFirst(db, unanswered([[2, 4]]));
    submit("a", append([1, 3], [2, 4]));
    submit("b", append([1, 3]));
    await time.settle();
    expect(settled).toEqual(["a: 2@4", "b: "]);
  });

  test("lets an operation whose settling fails fail alone", async () => {
    const { db, time, settled, submit } = setUp();
    loseFirst(db, unanswered());
    const settling = (error: Error): OperationOptions => ({
      afterLostAnswer: () => {
        throw error;
      },
    });
    submit("a", settling(new Problem("conflict", "scripted")));
    submit("b", settling(new TypeError("a defect")));
    submit("c", append());
    await time.settle();
    submit("d");
    await time.settle();
    expect(settled).toEqual(["a: conflict", "b: TypeError: a defect", "c: ", "d: d"]);
  });

  test("repeats once more where the answer is lost again", async () => {
    const { db, time, settled, submitAll, submit } = setUp();
    loseFirst(db, unanswered(), unanswered());
    submit("a", repeat);
    await time.settle();
    submitAll("b");
    await time.settle();
    expect(db.asked).toEqual([["a"], ["a"], ["a"], ["b"]]);
    expect(settled).toEqual(["a: a", "b: b"]);
  });

  test("goes on one by one with the suspects behind it", async () => {
    const { db, time, settled, submit } = setUp();
    const outcomes = [failed("rejected"), unanswered(), undefined, failed("rejected")];
    db.onWrite = () => {
      const error = outcomes.shift();
      if (error) throw error;
    };
    submit("a", repeat);
    submit("b", repeat);
    submit("c", repeat);
    await time.settle();
    expect(db.asked.slice(0, 4)).toEqual([["a", "b", "c"], ["a"], ["a"], ["b"]]);
    expect(settled).toEqual(["a: a", "b: internal", "c: c"]);
  });

  test.each(["full", "io", "rejected", "unknown"] as const)(
    "and fails as %s when it is repeated, says outcome_unknown: it was written",
    async (failure) => {
      const { db, time, settled, submit } = setUp();
      loseFirst(db, unanswered());
      submit("a", repeat);
      await turnOfTheLoop();
      db.onWrite = () => {
        throw failed(failure);
      };
      await time.settle();
      expect(db.asked).toEqual([["a"], ["a"]]);
      expect(settled).toEqual(["a: outcome_unknown"]);
    },
  );

  test("and is past its deadline when it is to be repeated, says outcome_unknown, and unavailable to others", async () => {
    const { db, time, settled, submit } = setUp(() => 0.5);
    loseFirst(db, unanswered());
    submit("a", repeat);
    await turnOfTheLoop();
    db.onWrite = () => {
      throw failed("busy");
    };
    submit("b", repeat);
    await time.advance(WRITE_DEADLINE_MS + 50);
    expect(settled).toEqual(["a: outcome_unknown", "b: unavailable"]);
  });

  test("holds the bytes of what is repeated until that is settled", async () => {
    const { db, queue, time, submit } = setUp();
    const bytes = PENDING_WRITE_BYTES_MAX / 4;
    const { release } = hold(db);
    const holding = db.onWrite;
    db.onWrite = () => {
      db.onWrite = holding;
      throw unanswered();
    };
    submit("a", { ...repeat, bytes });
    await time.settle(); // it is being repeated
    expect(db.asked).toEqual([["a"], ["a"]]);
    const left = PENDING_WRITE_BYTES_MAX - bytes;
    expect(await codeOf(queue.submit(operation("b", { bytes: left + 1 })))).toBe("unavailable");
    const fitting = queue.submit(operation("c", { bytes: left }));
    release();
    await time.settle();
    release();
    expect(await codeOf(fitting)).toBe("resolved");
    const all = queue.submit(operation("d", { bytes: PENDING_WRITE_BYTES_MAX }));
    await time.settle();
    release();
    expect(await codeOf(all)).toBe("resolved");
  });

  test.each([
    { what: "repeated", options: repeat },
    { what: "settled by the log ends", options: append() },
    { what: "outcome_unknown", options: {} },
  ])("leaves no bytes of what is $what", async ({ options }) => {
    const { db, queue, time, submit } = setUp();
    loseFirst(db, unanswered());
    submit("a", { ...options, bytes: PENDING_WRITE_BYTES_MAX });
    await time.settle();
    const next = queue.submit(operation("b", { bytes: PENDING_WRITE_BYTES_MAX }));
    await time.settle();
    expect(await codeOf(next)).toBe("resolved");
    expect(await codeOf(queue.submit(operation("c", { bytes: PENDING_WRITE_BYTES_MAX + 1 })))).toBe(
      "unavailable",
    );
  });
});

describe("WriteQueue, with an operation that wants a flush of its own", () => {
  test("writes it after what came before and before what comes later", async () => {
    const { db, time, submit } = setUp();
    submit("a");
    submit("b");
    submit("c", { isAlone: true });
    submit("d", { isAlone: true });
    submit("e");
    submit("f");
    await time.settle();
    expect(db.asked).toEqual([["a", "b"], ["c"], ["d"], ["e", "f"]]);
  });
});

describe("WriteQueue, with operations that are patient", () => {
  const patient = { isPatient: true };

  test("lets them wait for others while chunks are read, eight turns at most", async () => {
    const { db, reading, submit } = setUp();
    reading.isBusy = true;
    submit("a", patient);
    for (let turn = 1; turn < 8; turn += 1) {
      await turnOfTheLoop();
      expect(db.asked).toEqual([]);
      submit(`later ${turn}`, patient);
    }
    await turnOfTheLoop();
    expect(db.asked).toEqual([["a", ...Array.from({ length: 7 }, (_, turn) => `later ${turn + 1}`)]]);
  });

  test("writes them at once where nothing is read", async () => {
    const { db, submit } = setUp();
    submit("a", patient);
    await turnOfTheLoop();
    expect(db.asked).toEqual([["a"]]);
  });

  test("writes them when the reading has ended", async () => {
    const { db, reading, submit } = setUp();
    reading.isBusy = true;
    submit("a", patient);
    await turnOfTheLoop();
    expect(db.asked).toEqual([]);
    reading.isBusy = false;
    await turnOfTheLoop();
    expect(db.asked).toEqual([["a"]]);
  });

  test("lets nobody wait for them: what is in a hurry takes them along", async () => {
    const { db, reading, submit } = setUp();
    reading.isBusy = true;
    submit("a", patient);
    await turnOfTheLoop();
    submit("b");
    await turnOfTheLoop();
    expect(db.asked).toEqual([["a", "b"]]);
  });

  test("is closed when they are written", async () => {
    const { db, queue, reading, submit } = setUp();
    reading.isBusy = true;
    submit("a", patient);
    await queue.close();
    expect(db.committed).toEqual(["a"]);
  });
});

describe("WriteQueue's options for the database", () => {
  test("say whether a flush leaves conditions to be judged by", async () => {
    const { db, time, submit } = setUp();
    submit("a");
    await time.settle();
    submit("b");
    submit("c", { op: 3 });
    await time.settle();
    expect(db.options.map((options) => options?.leavesGuard)).toEqual([false, true]);
  });

  test("say which partitions a flush appends to, each once", async () => {
    const { db, time, submit } = setUp();
    const appends = (...ids: readonly number[]) => ({
      appends: ids.map((id) => ({ partitionId: id, schemaVersion: 0, count: 1 })),
    });
    submit("a", appends(3, 1));
    submit("b");
    submit("c", appends(1, 2));
    await time.settle();
    submit("d");
    await time.settle();
    expect(db.options.map((options) => options?.appendedTo)).toEqual([[3, 1, 2], []]);
  });

  test("say how long the oldest of it may wait still", async () => {
    const { db, time, submit } = setUp();
    const { release } = hold(db);
    submit("a");
    await time.advance(4_000);
    submit("b");
    await time.advance(1_000);
    submit("c");
    release();
    await time.settle();
    expect(db.options.map((options) => options?.withinMs)).toEqual([
      WRITE_DEADLINE_MS,
      WRITE_DEADLINE_MS - 1_000,
    ]);
  });
});

describe("WriteQueue, while another process holds the write lock", () => {
  const busy = () => {
    throw failed("busy");
  };

  test.each([
    { random: 0, delayMs: 2 },
    { random: 0.5, delayMs: 26 },
    { random: 0.999, delayMs: 49.952 },
  ])("waits $delayMs ms before it tries again when chance says $random", async ({ random, delayMs }) => {
    const { db, time, settled, submit } = setUp(() => random);
    failFirst(db, failed("busy"));
    submit("a");
    await time.settle();
    expect(time.pendingDelaysMs).toEqual([expect.closeTo(delayMs)]);
    await time.advance(delayMs - 0.01);
    expect(db.asked).toEqual([["a"]]);
    await time.advance(0.02);
    expect(db.asked).toEqual([["a"], ["a"]]);
    expect(settled).toEqual(["a: a"]);
  });

  test("takes in what comes meanwhile, and settles all in order when the lock is free", async () => {
    const { db, time, settled, submit, submitAll } = setUp(() => 0.5);
    db.onWrite = busy;
    submit("a");
    await time.advance(100);
    submitAll("b", "c");
    await time.advance(100);
    expect(settled).toEqual([]);
    db.onWrite = () => {};
    await time.advance(50);
    expect(db.asked.at(-1)).toEqual(["a", "b", "c"]);
    expect(db.committed).toEqual(["a", "b", "c"]);
    expect(settled).toEqual(["a: a", "b: b", "c: c"]);
  });

  test("says unavailable at the deadline, not before, and has written nothing", async () => {
    const { db, time, settled, submit } = setUp(() => 0.5);
    db.onWrite = busy;
    submit("a");
    await time.advance(WRITE_DEADLINE_MS - 1);
    expect(settled).toEqual([]);
    await time.advance(51);
    expect(settled).toEqual(["a: unavailable"]);
    expect(db.committed).toEqual([]);
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("gives each operation its own deadline", async () => {
    const { db, time, settled, submit } = setUp(() => 0.5);
    db.onWrite = busy;
    submit("a");
    await time.advance(10_000);
    submit("b");
    await time.advance(WRITE_DEADLINE_MS - 10_000 + 50);
    expect(settled).toEqual(["a: unavailable"]);
    db.onWrite = () => {};
    await time.advance(50);
    expect(settled).toEqual(["a: unavailable", "b: b"]);
    expect(db.committed).toEqual(["b"]);
  });

  test("does not refuse at the deadline what is being written just then", async () => {
    const { db, time, settled, submit } = setUp();
    const { release } = hold(db);
    submit("a");
    await time.advance(WRITE_DEADLINE_MS + 1_000);
    expect(settled).toEqual([]);
    release();
    await time.settle();
    expect(settled).toEqual(["a: a"]);
  });

  test("forgets the suspects that it has refused at the deadline", async () => {
    const { db, time, settled, submitAll } = setUp(() => 0.5);
    const errors = [failed("rejected")];
    db.onWrite = () => {
      throw errors.shift() ?? failed("busy");
    };
    submitAll("a", "b");
    await time.advance(WRITE_DEADLINE_MS + 50);
    expect(settled).toEqual(["a: unavailable", "b: unavailable"]);
    db.onWrite = () => {};
    submitAll("c", "d");
    await time.settle();
    expect(db.asked.at(-1)).toEqual(["c", "d"]);
  });
});

describe("WriteQueue's limit of 64 MiB", () => {
  test("lets in what fills it to the last byte and refuses one more", async () => {
    const { db, queue, time, settled, submit } = setUp();
    const { release } = hold(db);
    submit("a", { bytes: PENDING_WRITE_BYTES_MAX - 1 });
    submit("b", { bytes: 1 });
    submit("nothing", { bytes: 0 });
    expect(await codeOf(queue.submit(operation("c")))).toBe("unavailable");
    expect(settled).toEqual([]);
    for (let flush = 0; flush < 3; flush += 1) {
      await time.settle();
      release();
    }
    await time.settle();
    expect(db.committed).toEqual(["a", "b", "nothing"]);
  });

  test("says what it found and what is allowed", async () => {
    const { queue } = setUp();
    const refused = queue.submit(operation("a", { bytes: PENDING_WRITE_BYTES_MAX + 1 }));
    await expect(refused).rejects.toThrow(/^0 bytes .* 67108864 may$/);
    const problem = await refused.catch((error: unknown) => error);
    expect(problem).toMatchObject({ code: "unavailable", isRetriable: true });
  });

  test.each([
    { outcome: "written", error: undefined },
    { outcome: "rejected", error: failed("rejected") },
    { outcome: "unknown", error: failed("unknown") },
    { outcome: "full", error: failed("full") },
  ])("is free again when what filled it is $outcome", async ({ error }) => {
    const { db, queue, time, submit } = setUp();
    if (error) failFirst(db, error);
    submit("a", { bytes: PENDING_WRITE_BYTES_MAX });
    await time.settle();
    const next = queue.submit(operation("b", { bytes: PENDING_WRITE_BYTES_MAX }));
    await time.settle();
    expect(await codeOf(next)).toBe("resolved");
  });

  test("is free again when what filled it has passed its deadline", async () => {
    const { db, queue, time, submit } = setUp();
    db.onWrite = () => {
      throw failed("busy");
    };
    submit("a", { bytes: PENDING_WRITE_BYTES_MAX });
    await time.advance(WRITE_DEADLINE_MS + 50);
    db.onWrite = () => {};
    const next = queue.submit(operation("b", { bytes: PENDING_WRITE_BYTES_MAX }));
    await time.settle();
    expect(await codeOf(next)).toBe("resolved");
  });

  test("is held until it is durable", async () => {
    const { db, queue, time, submit } = setUp();
    const { release } = hold(db);
    submit("a", { bytes: PENDING_WRITE_BYTES_MAX });
    await time.settle();
    expect(db.asked).toEqual([["a"]]);
    expect(await codeOf(queue.submit(operation("b")))).toBe("unavailable");
    release();
    await time.settle();
    const next = queue.submit(operation("c"));
    await time.settle();
    release();
    expect(await codeOf(next)).toBe("resolved");
  });
});

describe("WriteQueue.close()", () => {
  test("writes all that was taken, then resolves", async () => {
    const { db, queue, time, settled, submit, submitAll } = setUp();
    const { release } = hold(db);
    submit("a");
    await time.settle();
    submitAll("b", "c");
    let isClosed = false;
    const closed = queue.close().then(() => {
      isClosed = true;
      expect(settled).toEqual(["a: a", "b: b", "c: c"]);
    });
    release();
    await time.settle();
    expect(isClosed).toBe(false);
    release();
    await closed;
    expect(db.committed).toEqual(["a", "b", "c"]);
  });

  test("refuses what comes after it and writes none of that", async () => {
    const { db, queue, time, submit } = setUp();
    submit("a");
    const closed = queue.close();
    expect(await codeOf(queue.submit(operation("b")))).toBe("unavailable");
    await closed;
    expect(await codeOf(queue.submit(operation("c")))).toBe("unavailable");
    await time.advance(60_000);
    expect(db.committed).toEqual(["a"]);
  });

  test("resolves at once where nothing waits, and again when it is called again", async () => {
    const { queue, time, submit } = setUp();
    submit("a");
    await time.settle();
    await queue.close();
    await queue.close();
    expect(time.pendingDelaysMs).toEqual([]);
  });

  test("resolves to all who close while something is written", async () => {
    const { queue, settled, submit } = setUp();
    submit("a");
    await Promise.all([queue.close(), queue.close()]);
    expect(settled).toEqual(["a: a"]);
  });

  test("waits for the lock as long as the deadline allows, then gives up", async () => {
    const { db, queue, time, settled, submit } = setUp();
    db.onWrite = () => {
      throw failed("busy");
    };
    submit("a");
    let isClosed = false;
    void queue.close().then(() => {
      isClosed = true;
    });
    await time.advance(WRITE_DEADLINE_MS - 1);
    expect(isClosed).toBe(false);
    await time.advance(51);
    expect(isClosed).toBe(true);
    expect(settled).toEqual(["a: unavailable"]);
  });
});

// ── any sequence of operations and faults ────────────────────────────────────────────────────────────────

const fault = fc.constantFrom<"ok" | "busy" | "full" | "io" | "lost" | "kept" | "unanswered" | "defect">(
  "ok",
  "ok",
  "busy",
  "full",
  "io",
  "lost", // unknown, and it was not written
  "kept", // unknown, and it was
  "unanswered",
  "unanswered",
  "defect",
);

const command = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("submit" as const),
      statements: fc.integer({ min: 1, max: 3 }),
      bytes: fc.constantFrom(0, 1, 200, MIB, 2 * MIB, 3 * MIB, 30 * MIB),
      /** The database refuses every flush that has it. */
      isGuilty: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
      /** Its own conditions do not hold. */
      isFenced: fc.boolean(),
      afterLostAnswer: fc.constantFrom("repeat", "log ends", undefined),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: "settle" as const }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("advance" as const), ms: fc.integer({ max: 20_000, min: 1 }) }),
  },
);

test("WriteQueue settles every operation once: what resolved was written once, what was refused never", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 40 }), fc.array(fault, { maxLength: 30 }), playOut),
    { numRuns: 1_000 },
  );
}, 60_000);

async function playOut(
  commands: readonly (typeof command extends fc.Arbitrary<infer T> ? T : never)[],
  faults: readonly (typeof fault extends fc.Arbitrary<infer T> ? T : never)[],
): Promise<void> {
  const { db, time, queue } = setUp(() => 0.5);
  const left = [...faults];
  const guilty = new Set<string>();
  db.onWrite = (texts) => {
    switch (left.shift() ?? "ok") {
      case "ok":
        if (texts.some((text) => guilty.has(text))) throw failed("rejected");
        return;
      case "busy":
        throw failed("busy");
      case "full":
        throw failed("full");
      case "io":
        throw failed("io");
      case "lost":
        throw failed("unknown");
      case "kept":
        db.committed.push(...texts);
        throw failed("unknown");
      case "unanswered":
        if (texts.some((text) => guilty.has(text))) throw failed("rejected");
        db.committed.push(...texts);
        throw failed("unanswered");
      case "defect":
        throw new TypeError("a defect");
    }
  };

  const operations: {
    name: string;
    texts: readonly string[];
    outcomes: string[];
    settles: number;
    isRepeatable: boolean;
  }[] = [];
  const ordersOfResults = { repeatable: [] as string[], others: [] as string[] };
  const submitNext = (options: {
    statements: number;
    bytes: number;
    isGuilty: boolean;
    isFenced: boolean;
    afterLostAnswer: "repeat" | "log ends" | undefined;
  }) => {
    const name = `op${operations.length}`;
    const isRepeatable = options.afterLostAnswer === "repeat";
    const entry = {
      name,
      texts: [] as readonly string[],
      outcomes: [] as string[],
      settles: 0,
      isRepeatable,
    };
    const submitted = operation(name, {
      ...options,
      afterLostAnswer: isRepeatable ? "repeat" : undefined,
      settle: () => {
        entry.settles += 1;
        if (options.isFenced) throw new Problem("fenced_generation", "scripted");
      },
    });
    entry.texts = submitted.statements.map(({ sql }) => sql);
    const byLogEnds = () => {
      entry.settles += 1;
      if (options.isFenced) throw new Problem("fenced_generation", "scripted");
      return entry.texts;
    };
    if (options.isGuilty && entry.texts[0] !== undefined) guilty.add(entry.texts[0]);
    operations.push(entry);
    const isByLogEnds = options.afterLostAnswer === "log ends";
    queue.submit(isByLogEnds ? { ...submitted, afterLostAnswer: byLogEnds } : submitted).then(
      (said) => {
        expect(said).toEqual(entry.texts);
        entry.outcomes.push("resolved");
        ordersOfResults[isRepeatable ? "repeatable" : "others"].push(name);
      },
      (error) => entry.outcomes.push(error instanceof Problem ? error.code : `defect: ${error}`),
    );
  };

  for (const next of commands) {
    if (next.kind === "submit") submitNext(next);
    else if (next.kind === "settle") await time.settle();
    else await time.advance(next.ms);
  }
  const closed = queue.close();
  await time.advance(2 * WRITE_DEADLINE_MS);
  await closed;

  const timesCommitted = (texts: readonly string[]) =>
    new Set(texts.map((text) => db.committed.filter((other) => other === text).length));
  for (const { texts, outcomes, settles, isRepeatable } of operations) {
    expect(outcomes).toHaveLength(1);
    const [outcome] = outcomes;
    const times = timesCommitted(texts);
    expect(times.size).toBe(1); // all of an operation, or nothing of it
    const [written] = times;
    if (outcome === "resolved" || outcome === "fenced_generation") {
      expect(settles).toBe(1);
      if (isRepeatable) expect(written).toBeGreaterThanOrEqual(1);
      else expect(written).toBe(1);
    } else {
      expect(settles).toBe(0);
      if (outcome === "outcome_unknown") expect(isRepeatable || Number(written) <= 1).toBe(true);
      else expect({ outcome, written }).toEqual({ outcome, written: 0 });
      expect(["outcome_unknown", "internal", "unavailable", "storage_full"]).toContain(String(outcome));
    }
    if (outcome === "internal") expect(guilty.has(String(texts[0]))).toBe(true);
    if (guilty.has(String(texts[0]))) expect(outcome).not.toBe("resolved");
  }
  const inOrder = (names: readonly string[]) =>
    names.toSorted((a, b) => Number(a.slice(2)) - Number(b.slice(2)));
  for (const order of Object.values(ordersOfResults)) expect(order).toEqual(inOrder(order));
  const committedOperations = [...new Set(db.committed.map((text) => text.replace(/\.\d+$/, "")))];
  expect(committedOperations).toEqual(inOrder(committedOperations));
}
