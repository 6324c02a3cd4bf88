// What commit_offset takes and what it refuses, through each of the SQLites that it has to run in.

import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { SQL_ENGINES } from "../support/sql-engines.ts";
import { refusalOf, type SqlSession } from "../support/sql-session.ts";

setDefaultTimeout(30_000); // where the machine has much else to do

// Partition 0 has the offsets 10 to 100 and 40 is committed; of partition 1 nothing is; 2 has no owner.
const CREATE = [
  "INSERT INTO topics (topic, partition_count, created_at) VALUES ('orders', 3, 0), ('other', 1, 0)",
  `INSERT INTO partitions (topic_id, partition, log_start_offset, log_end_offset)
   VALUES (1, 0, 10, 100), (1, 1, 0, 7), (1, 2, 0, 7), (2, 0, 0, 7)`,
  "INSERT INTO groups VALUES ('billing', 1, 0), ('audit', 2, 0)",
  `INSERT INTO assignments (group_id, partition_id, member_id, generation)
   VALUES ('billing', 1, 'm', 5), ('billing', 2, 'm', 6), ('audit', 3, 'm', 7)`,
  "CREATE TABLE results (n INTEGER)",
];
const EMPTY = [
  "DELETE FROM committed_offsets",
  "INSERT INTO committed_offsets VALUES ('billing', 1, 40, 'said', 7)",
];
const COMMITTED = "SELECT * FROM committed_offsets ORDER BY group_id, partition_id";
const UNTOUCHED = [
  { group_id: "billing", partition_id: 1, committed_offset: 40, metadata: "said", committed_at: 7 },
];

/** Group, topic, partition, generation, offset: SQL expressions. */
type Commit = readonly [group: string, topic: string, partition: string, generation: string, offset: string];

const insert = (commit: Commit, verb = "INSERT") =>
  `${verb} INTO commit_offset (group_id, topic, partition, generation, offset) VALUES (${commit})`;

const TAKEN: readonly (readonly [name: string, commit: Commit, partitionId: number, committed: number])[] = [
  ["one above the committed offset", ["'billing'", "'orders'", "0", "5", "41"], 1, 41],
  ["the log end offset", ["'billing'", "'orders'", "0", "5", "100"], 1, 100],
  ["0 where nothing is committed", ["'billing'", "'orders'", "1", "6", "0"], 2, 0],
  ["floats, as JavaScript's clients bind numbers", ["'billing'", "'orders'", "0.0", "5.0", "41.0"], 1, 41],
];

const REFUSED: readonly (readonly [code: string, name: string, commit: Commit])[] = [
  ["unknown_topic", "a topic that is not there", ["'billing'", "'nowhere'", "0", "5", "41"]],
  ["unknown_topic", "NULL for the topic", ["'billing'", "NULL", "0", "5", "41"]],
  ["unknown_partition", "a partition that is not there", ["'billing'", "'orders'", "3", "5", "41"]],
  ["unknown_partition", "NULL for the partition", ["'billing'", "'orders'", "NULL", "5", "41"]],
  ["unknown_partition", "a partition that is text", ["'billing'", "'orders'", "'0'", "5", "41"]],
  ["bad_request", "NULL for the offset", ["'billing'", "'orders'", "0", "5", "NULL"]],
  ["bad_request", "an offset that is text", ["'billing'", "'orders'", "0", "5", "'41'"]],
  ["bad_request", "half an offset", ["'billing'", "'orders'", "0", "5", "41.5"]],
  ["bad_request", "an offset below 0", ["'billing'", "'orders'", "1", "6", "-1"]],
  ["bad_request", "an offset without end", ["'billing'", "'orders'", "0", "5", "9e999"]],
  ["bad_request", "an offset that is a BLOB", ["'billing'", "'orders'", "0", "5", "x'34'"]],
  ["bad_request", "NULL for the generation", ["'billing'", "'orders'", "0", "NULL", "41"]],
  ["bad_request", "a generation that is text", ["'billing'", "'orders'", "0", "'5'", "41"]],
  ["bad_request", "half a generation", ["'billing'", "'orders'", "0", "5.5", "41"]],
  ["fenced_generation", "an older generation", ["'billing'", "'orders'", "0", "4", "41"]],
  ["fenced_generation", "a generation to come", ["'billing'", "'orders'", "0", "8", "41"]],
  ["fenced_generation", "the generation of another partition", ["'billing'", "'orders'", "0", "6", "41"]],
  ["fenced_generation", "the generation of another group", ["'billing'", "'orders'", "2", "7", "1"]],
  ["fenced_generation", "a partition that nobody owns", ["'billing'", "'other'", "0", "5", "1"]],
  ["fenced_generation", "a group that is not there", ["'nobody'", "'orders'", "0", "5", "41"]],
  ["fenced_generation", "NULL for the group", ["NULL", "'orders'", "0", "5", "41"]],
  ["offset_out_of_range", "one above the log end offset", ["'billing'", "'orders'", "0", "5", "101"]],
  ["offset_out_of_range", "an offset far above", ["'billing'", "'orders'", "0", "5", "9007199254740993"]],
  ["conflict", "the committed offset again", ["'billing'", "'orders'", "0", "5", "40"]],
  ["conflict", "an offset below the committed one", ["'billing'", "'orders'", "0", "5", "0"]],
];

/** The conflict clause of a statement holds in the triggers that it fires; what they raise stays what it is. */
const VERBS = ["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR FAIL", "INSERT OR ROLLBACK"];

for (const { name, isThere, open } of SQL_ENGINES) {
  describe.skipIf(!isThere)(`commit_offset in ${name}`, () => {
    let session: SqlSession;
    beforeAll(async () => {
      session = await open(CREATE);
    });
    beforeEach(async () => {
      for (const sql of EMPTY) await session.run(sql);
    });
    afterAll(() => session.end());

    test.each(
      TAKEN.map(([title, commit, partitionId, committed]) => ({ title, commit, partitionId, committed })),
    )("takes $title", async ({ commit, partitionId, committed }) => {
      const [before] = await session.run("SELECT now_ms FROM clock");
      await session.run(insert(commit));
      const rows = await session.run(
        `SELECT committed_offset, typeof(committed_offset) AS type, metadata,
             committed_at BETWEEN ${before?.now_ms} AND (SELECT now_ms FROM clock) AS is_now
           FROM committed_offsets WHERE group_id = 'billing' AND partition_id = ${partitionId}`,
      );
      expect(rows).toEqual([{ committed_offset: committed, type: "integer", metadata: null, is_now: 1 }]);
    });

    test.each(REFUSED.map(([code, title, commit]) => ({ code, title, commit })))(
      "refuses $title: $code, and changes nothing",
      async ({ code, commit }) => {
        for (const verb of VERBS)
          expect(await refusalOf(session.run(insert(commit, verb)))).toBe(code as "none");
        expect(await session.run(COMMITTED)).toEqual(UNTOUCHED);
      },
    );

    test("takes several rows, all of them or none", async () => {
      const rows = (generation: number) =>
        `INSERT INTO commit_offset SELECT 'billing', 'orders', value ->> 0, value ->> 1, value ->> 2
         FROM json_each('[[0,5,50],[1,${generation},7]]')`;
      expect(await refusalOf(session.run(rows(5)))).toBe("fenced_generation");
      expect(await session.run(COMMITTED)).toEqual(UNTOUCHED);
      await session.run(rows(6));
      const offsets = (await session.run(COMMITTED)).map((row) => row.committed_offset);
      expect(offsets).toEqual([50, 7]);
      expect(await refusalOf(session.run(rows(6)))).toBe("conflict");
    });

    test("that is refused leaves nothing of the statement that it is part of", async () => {
      await session.run("DROP TRIGGER IF EXISTS both");
      await session.run(`CREATE TRIGGER both AFTER INSERT ON results BEGIN
        INSERT INTO append_record (topic, value, partition) VALUES ('orders', NEW.n, 0);
        INSERT INTO commit_offset VALUES ('billing', 'orders', 0, NEW.n, 41);
      END`);
      expect(await refusalOf(session.run("INSERT INTO results VALUES (4)"))).toBe("fenced_generation");
      expect(await session.run("SELECT count(*) AS n FROM results")).toEqual([{ n: 0 }]);
      expect(await session.run("SELECT count(*) AS n FROM records")).toEqual([{ n: 0 }]);
      expect(await session.run(COMMITTED)).toEqual(UNTOUCHED);
    });
  });
}
