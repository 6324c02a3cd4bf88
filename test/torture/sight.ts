// What the database has, by SQL: stock SQLite beside the server's file, or a client of its own beside a remote one.

import { Database } from "bun:sqlite";
import { createClient } from "@libsql/client/web";
import * as v from "valibot";
import { COMPACTED } from "../life/topics.ts";
import type { EventOf, ResetRow } from "../proof/history.ts";

type SqlRow = Readonly<Record<string, unknown>>;

export interface Sight {
  /** Whether it is done before anybody else in this process does anything. */
  readonly isInstant: boolean;
  /** Of the file; undefined of a remote database. */
  readonly path: string | undefined;
  /** All in one snapshot. Rejects where the database cannot be read now. */
  rows(...statements: readonly string[]): Promise<readonly (readonly SqlRow[])[]>;
}

const FILE_BUSY_MS = 1_000;
/** The load waits for as long. */
const REMOTE_PATIENCE_MS = 500;

export function sightOfFile(path: string): Sight {
  return {
    isInstant: true,
    path,
    rows: async (...statements) => {
      const database = new Database(path, { readonly: true });
      try {
        database.run(`PRAGMA busy_timeout = ${FILE_BUSY_MS}`);
        return database.transaction(() => statements.map((sql) => readAll(database, sql)))();
      } finally {
        database.close();
      }
    },
  };
}

/** A statement that is left open keeps the file open. */
function readAll(database: Database, sql: string): readonly SqlRow[] {
  const statement = database.prepare<SqlRow, []>(sql);
  try {
    return statement.all();
  } finally {
    statement.finalize();
  }
}

export function sightOfRemote(url: string): Sight {
  const client = createClient({
    url,
    fetch: (request: Request) => fetch(request, { signal: AbortSignal.timeout(REMOTE_PATIENCE_MS) }),
  });
  return {
    isInstant: false,
    path: undefined,
    rows: async (...statements) => {
      const results = await client.batch([...statements], "read");
      return results.map(({ rows, columns }) =>
        rows.map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index]]))),
      );
    },
  };
}

const LOG = "t.topic, t.topic_id AS topicId, p.partition";
const LOGS = `
  SELECT ${LOG}, p.partition_id AS partitionId, p.log_start_offset AS logStartOffset, p.log_end_offset AS logEndOffset
  FROM partitions AS p JOIN topics AS t ON t.topic_id = p.topic_id`;
const COMMITTED = `
  SELECT ${LOG}, c.group_id AS "group", c.committed_offset AS offset
  FROM committed_offsets AS c JOIN partitions AS p ON p.partition_id = c.partition_id
  JOIN topics AS t ON t.topic_id = p.topic_id`;
const OWNERS = `
  SELECT ${LOG}, a.group_id AS "group", a.generation
  FROM assignments AS a JOIN partitions AS p ON p.partition_id = a.partition_id
  JOIN topics AS t ON t.topic_id = p.topic_id`;
const resetsAfter = (historyId: number) => `
  SELECT history_id AS historyId, group_id AS "group", topic, partition, previous_offset AS previous,
         new_offset AS offset, cause
  FROM offset_history WHERE history_id > ${historyId} ORDER BY history_id`;

const logFields = { topic: v.string(), topicId: v.number(), partition: v.number() };
const LogRow = v.object({
  ...logFields,
  partitionId: v.number(),
  logStartOffset: v.number(),
  logEndOffset: v.number(),
});
const CommittedRow = v.object({ ...logFields, group: v.string(), offset: v.number() });
const OwnerRow = v.object({ ...logFields, group: v.string(), generation: v.number() });
const HistoryRow = v.object({
  historyId: v.number(),
  group: v.string(),
  topic: v.string(),
  partition: v.number(),
  previous: v.nullable(v.number()),
  offset: v.number(),
  cause: v.string(),
});
const RecordRow = v.object({ offset: v.number(), value: v.string() });

export interface SeenSnapshot {
  readonly event: EventOf<"snapshot">;
  /** For the next one. */
  readonly lastHistoryId: number;
}

/**
 * `groupsAhead` commit what is not told yet: whether they own what they commit is not to be judged by when their
 * clients learn of it, so their owners are left out.
 */
export async function takeSnapshot(
  sight: Sight,
  { after, groupsAhead }: { after: number; groupsAhead: ReadonlySet<string> },
): Promise<SeenSnapshot> {
  const [logs, committed, owners, history] = await sight.rows(LOGS, COMMITTED, OWNERS, resetsAfter(after));
  const found = v.parse(v.array(HistoryRow), history);
  const resets: readonly ResetRow[] = found.map(({ historyId: _, ...row }) => row);
  return {
    event: {
      type: "snapshot",
      logs: v.parse(v.array(LogRow), logs).map(({ partitionId: _, ...log }) => log),
      committed: v.parse(v.array(CommittedRow), committed),
      owners: v.parse(v.array(OwnerRow), owners).filter(({ group }) => !groupsAhead.has(group)),
      resets,
    },
    lastHistoryId: found.at(-1)?.historyId ?? after,
  };
}

/** A remote database limits its answers. */
const RECORDS_PER_READ = 5_000;

export async function readLogs(sight: Sight): Promise<readonly EventOf<"log">[]> {
  const [logs] = await sight.rows(LOGS);
  const events: EventOf<"log">[] = [];
  for (const { partitionId, ...log } of v.parse(v.array(LogRow), logs))
    if (log.topic !== COMPACTED.topic)
      // with gaps, and judged by rules of its own
      events.push({ type: "log", ...log, records: await readRecords(sight, partitionId) });
  return events;
}

async function readRecords(sight: Sight, partitionId: number) {
  const records: { offset: number; value: string }[] = [];
  for (;;) {
    const after = records.at(-1)?.offset ?? -1;
    const [rows = []] = await sight.rows(
      `SELECT offset, value FROM records WHERE partition_id = ${partitionId} AND offset > ${after}
       ORDER BY offset LIMIT ${RECORDS_PER_READ}`,
    );
    for (const { offset, value } of v.parse(v.array(RecordRow), rows))
      records.push({ offset, value: String(JSON.parse(value)) });
    if (rows.length < RECORDS_PER_READ) return records;
  }
}

/** How many partitions of these groups have not everything acknowledged, and how many of deleted topics are left. */
export async function countUnfinished(sight: Sight, groups: readonly string[]): Promise<number> {
  const names = groups.map((group) => `'${group}'`).join(", ");
  const [rows] = await sight.rows(
    `SELECT (SELECT count(*) FROM consumer_lag WHERE group_id IN (${names}) AND (lag IS NULL OR lag > 0))
          + (SELECT count(*) FROM purges) AS n`,
  );
  return Number(rows?.[0]?.n);
}

const bytesOf = (column: string) => `coalesce(length(CAST(r.${column} AS BLOB)), 0)`;

/** What must hold in the tables themselves when everything is at rest; each row that comes back is wrong. */
const RULES: Readonly<Record<string, string>> = {
  "the file is damaged":
    "SELECT integrity_check AS says FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
  "counters are not what the records say": `
    SELECT p.partition_id, p.records, p.log_start_offset, p.log_end_offset, count(r.offset) AS found
    FROM partitions AS p JOIN topics AS t ON t.topic_id = p.topic_id
    LEFT JOIN records AS r ON r.partition_id = p.partition_id
    GROUP BY p.partition_id
    HAVING p.records <> count(r.offset)
        OR t.cleanup = 'delete' AND p.log_end_offset - p.log_start_offset <> count(r.offset)`,
  "records of no partition": `
    SELECT DISTINCT partition_id FROM records WHERE partition_id NOT IN (SELECT partition_id FROM partitions)`,
  "purges that nobody works off": "SELECT partition_id FROM purges",
  "conditions that outlive their transaction": "SELECT op FROM guard",
  "assignments of nobody": `
    SELECT a.group_id, a.partition_id FROM assignments AS a
    LEFT JOIN members AS m ON m.group_id = a.group_id AND m.member_id = a.member_id WHERE m.member_id IS NULL`,
  "bytes are not what the records say": `
    SELECT p.partition_id, p.bytes, coalesce(sum(${bytesOf("value")} + ${bytesOf("key")} + ${bytesOf("headers")}), 0) AS found
    FROM partitions AS p LEFT JOIN records AS r ON r.partition_id = p.partition_id GROUP BY p.partition_id
    HAVING p.bytes <> found`,
  "steps that outlive their transaction":
    "SELECT partition_id AS one FROM trim_steps UNION ALL SELECT offset FROM superseded",
  "upkeep that goes on": "SELECT * FROM upkeep_lease WHERE expires_at > (SELECT now_ms FROM clock)",
};

/** A remote database does not let itself be checked for damage. */
export async function findBrokenRules(sight: Sight): Promise<readonly string[]> {
  const rules = Object.entries(RULES).filter(([, sql]) => sight.isInstant || !sql.includes("pragma_"));
  const found = await sight.rows(...rules.map(([, sql]) => sql));
  return rules.flatMap(([says], index) =>
    (found[index] ?? []).map((row) => `${says}: ${JSON.stringify(row)}`),
  );
}
