// What expires: producers that have written nothing for seven days, and, where the operator says so, groups that have
// had no members for long. `idle_groups` is owned here, the other tables by producers.ts and groups.ts.
//
// Both are walked through in the order of their names, a bounded number of rows a step, once in a while: an index by age
// would cost every write of a producer, and nothing here is urgent. What is found is judged again when it is deleted.

import { PRODUCER_IDLE_MAX_MS } from "../protocol/limits.ts";
import type { Db, Rows } from "./db.ts";
import { DELETE_ALL, LIVE_MEMBER, statementsOf } from "./group-changes.ts";
import type { Operation } from "./operations.ts";
import { type StepOutcome, stepOperation } from "./upkeep-steps.ts";

const ROWS_A_STEP = 200;

/** Of each part of a table those that there is something to do for. */
async function* walk(read: (after: string) => Promise<Rows>): AsyncGenerator<readonly string[]> {
  let rows: Rows;
  let after = "";
  do {
    rows = await read(after);
    after = String(rows.at(-1)?.name);
    yield rows.filter(({ is_due }) => is_due === 1).map(({ name }) => String(name));
  } while (rows.length === ROWS_A_STEP);
}

// ── producers ────────────────────────────────────────────────────────────────────────────────────────────

const IS_IDLE = "used_at <= (SELECT now_ms FROM clock) - :idle_max_ms";

const WALK_PRODUCERS = `
  SELECT producer_id AS name, ${IS_IDLE} AS is_due
  FROM producers WHERE producer_id > :after ORDER BY producer_id LIMIT :rows_max`;

const DELETE_PRODUCERS = `
  DELETE FROM producers WHERE producer_id IN (SELECT value FROM json_each(:ids)) AND ${IS_IDLE}`;

const DELETE_ANSWERS = `
  DELETE FROM producer_answers
  WHERE producer_id IN (SELECT value FROM json_each(:ids))
    AND NOT EXISTS (SELECT 1 FROM producers AS p WHERE p.producer_id = producer_answers.producer_id)`;

export function walkProducers(db: Db): AsyncGenerator<readonly string[]> {
  const limits = { rows_max: ROWS_A_STEP, idle_max_ms: PRODUCER_IDLE_MAX_MS };
  return walk((after) => db.read({ sql: WALK_PRODUCERS, args: { after, ...limits } }));
}

export async function hasProducers(db: Db): Promise<boolean> {
  return (await db.read({ sql: "SELECT 1 FROM producers LIMIT 1" })).length > 0;
}

/** Those of them that are still idle. Whoever comes back is as unknown as before: producers are judged by their age. */
export function expireProducers(producerIds: readonly string[]): Operation<StepOutcome> {
  const ids = JSON.stringify(producerIds);
  return stepOperation([
    { sql: DELETE_PRODUCERS, args: { ids, idle_max_ms: PRODUCER_IDLE_MAX_MS } },
    { sql: DELETE_ANSWERS, args: { ids } },
  ]);
}

// ── groups ───────────────────────────────────────────────────────────────────────────────────────────────

// Whoever joins or leaves, and whoever commits from outside, gives the group another version: then its time starts again,
// as it does where the clock was set back, and where a member whose lease had run out was renewed after all.
const NOTED_IDLE = `
  SELECT 1 FROM clock, groups AS g
  JOIN idle_groups AS i ON i.group_id = g.group_id AND i.version = g.version
  WHERE g.group_id = :group_id AND i.since <= now_ms
    AND NOT EXISTS (SELECT 1 FROM member_leases AS l WHERE l.group_id = g.group_id AND l.expires_at > i.since)`;

const IS_OVER = "i.since <= now_ms - :idle_max_ms";

const WALK_GROUPS = `
  SELECT w.group_id AS name,
         NOT EXISTS (${ofRow(LIVE_MEMBER)})
         AND (NOT EXISTS (${ofRow(NOTED_IDLE)}) OR EXISTS (${ofRow(NOTED_IDLE)} AND ${IS_OVER})) AS is_due
  FROM groups AS w WHERE w.group_id > :after ORDER BY w.group_id LIMIT :rows_max`;

const NOTE_IDLE = `
  INSERT INTO idle_groups (group_id, version, since)
  SELECT g.group_id, g.version, now_ms FROM groups AS g, clock
  WHERE g.group_id = :group_id AND NOT EXISTS (${LIVE_MEMBER}) AND NOT EXISTS (${NOTED_IDLE})
  ON CONFLICT (group_id) DO UPDATE SET version = excluded.version, since = excluded.since`;

const CHECK_EXPIRED = `
  INSERT INTO guard (op, ok)
  SELECT :op, EXISTS (${NOTED_IDLE} AND ${IS_OVER}) AND NOT EXISTS (${LIVE_MEMBER})`;

/** No row: there is nothing more to do. */
const END = "SELECT 1 WHERE 0";

const EXPIRE_GROUP: readonly string[] = [NOTE_IDLE, CHECK_EXPIRED, ...DELETE_ALL, END];

function ofRow(sql: string): string {
  return sql.replaceAll(":group_id", "w.group_id");
}

/** `idleMaxMs`: how long a group without members keeps its offsets. */
export function walkGroups(db: Db, idleMaxMs: number): AsyncGenerator<readonly string[]> {
  const limits = { rows_max: ROWS_A_STEP, idle_max_ms: idleMaxMs };
  return walk((after) => db.read({ sql: WALK_GROUPS, args: { after, ...limits } }));
}

interface GroupExpiry {
  /** WriteQueue.nextOp(). */
  readonly op: number;
  readonly group: string;
  readonly idleMaxMs: number;
}

/** Notes since when the group has had no live members, and deletes it when that is `idleMaxMs` or longer. */
export function expireGroup({ op, group, idleMaxMs }: GroupExpiry): Operation<StepOutcome> {
  return stepOperation(statementsOf(EXPIRE_GROUP, { op, group_id: group, idle_max_ms: idleMaxMs }));
}
