// Owns `groups`, `group_topics`, `members` and `assignments`: who is in a group and who owns what. (How memberships
// go on and end is in leases.ts.)
//
// A change of a group is planned from a picture and written on the condition that `groups.version` is still the one
// that was read; every change gives the group a new version. So a plan made from an old picture does nothing, and
// the caller reads again, see group-pictures.ts. (What an operator does to a group from outside is in group-changes.ts.)

import { type GroupPicture, memberBytes, partitionBytes } from "../core/group-picture.ts";
import type { GroupPlan } from "../core/group-plan.ts";
import { REVOKE_DEADLINE_MS } from "../protocol/limits.ts";
import { numberColumn, type Statement } from "./db.ts";
import { type GroupQuestion, pictureOf, pictureStatement } from "./group-pictures.ts";
import type { Operation } from "./operations.ts";
import { renewProcessLease } from "./processes.ts";

/** A look at a lease is too old to end it after that time: what was slow may have kept renewals waiting too. */
const EXPIRY_PLAN_AGE_MAX_MS = 2_000;

/** A remote database answers 10 MB at most, and says so when the write is done. */
const PICTURES_BYTES_MAX = 2_000_000;

// Many plans of as many groups are written by one run of these statements. Each plan has its condition in `guard`, and
// the others hold only for plans whose condition does. A plan's numbers begin at `base` above the sequence.
//
// Each statement gets the lists that it names and no others: an argument has its limit. LIMIT, in a join, makes SQLite
// take a plan apart once; without either, once for every row of the plan's lists, and a thousand partitions take seconds.
const OK_PLANS = `
  (SELECT value ->> 'group' AS group_id, value ->> 'base' AS base
   FROM json_each(:plans) JOIN guard ON guard.op = value ->> 'op' AND guard.ok LIMIT -1) AS plan`;

/** A row for each element of these plans' lists of that name. */
const inOkPlans = (list: PlanList) => `
  (SELECT value ->> 'group' AS group_id, value ->> 'base' AS base, value -> '${list}' AS list
   FROM json_each(:plans) JOIN guard ON guard.op = value ->> 'op' AND guard.ok LIMIT -1) AS plan, json_each(plan.list)`;

// A topic may have been deleted since: of one that is new to the group no version could tell. Of a lease that had run
// out the renewal may be on its way, so it must still be so, and the look at it recent: after an outage others come
// first. An operator's reset applies to the offsets that it was planned from, or not at all.
const CHECK_PLANS = `
  INSERT INTO guard (op, ok)
  SELECT plan.op,
    coalesce((SELECT version FROM groups WHERE group_id = plan.group_id), 0) = plan.version
    AND NOT EXISTS (SELECT 1 FROM json_each(plan.gained) AS gained
                    WHERE NOT EXISTS (SELECT 1 FROM partitions WHERE partition_id = gained.value))
    AND NOT EXISTS (SELECT 1 FROM json_each(plan.expired) AS expired
                    LEFT JOIN member_leases AS l ON l.group_id = plan.group_id AND l.member_id = expired.value
                    WHERE l.expires_at > clock.now_ms
                      OR clock.now_ms - plan.planned_at > :plan_age_max_ms)
    AND NOT EXISTS (SELECT 1 FROM json_each(plan.exact) AS reset
                    LEFT JOIN committed_offsets AS c
                      ON c.group_id = plan.group_id AND c.partition_id = reset.value ->> 0
                    LEFT JOIN partitions AS p ON p.partition_id = reset.value ->> 0
                    WHERE c.committed_offset IS NOT reset.value ->> 1 OR p.partition_id IS NULL)
  FROM (SELECT value ->> 'op' AS op, value ->> 'group' AS group_id, value ->> 'version' AS version,
               value ->> 'plannedAt' AS planned_at, value -> 'gained' AS gained, value -> 'expired' AS expired,
               value -> 'exact' AS exact
        FROM json_each(:plans) LIMIT -1) AS plan, clock`;

const CHANGE_GROUPS = `
  INSERT INTO groups (group_id, version, created_at)
  SELECT plan.group_id, last + plan.base + 1, now_ms FROM ${OK_PLANS}, sequence, clock
  WHERE true
  ON CONFLICT (group_id) DO UPDATE SET version = excluded.version
  RETURNING group_id, version`;

const END_MEMBERS = `
  DELETE FROM members
  WHERE (group_id, member_id) IN (
    SELECT plan.group_id, ended.value FROM ${inOkPlans("ended")} AS ended)`;

const INSERT_MEMBERS = `
  INSERT INTO members (group_id, member_id, instance_id, membership, topics, policies, session_timeout_ms, joined_at,
                       lease_expires_at, process_id)
  SELECT plan.group_id, joined.value ->> 'memberId', joined.value ->> 'instanceId', last + plan.base + 1,
         joined.value -> 'topics', joined.value -> 'policies', joined.value ->> 'sessionTimeoutMs', now_ms,
         now_ms + (joined.value ->> 'sessionTimeoutMs'), :process_id
  FROM ${inOkPlans("joins")} AS joined, sequence, clock`;

const SEE_TOPICS = `
  INSERT INTO group_topics (group_id, topic, topic_id, partitions_seen)
  SELECT plan.group_id, seen.value ->> 'topic', seen.value ->> 'topicId', seen.value ->> 'partitions'
  FROM ${inOkPlans("topicsSeen")} AS seen
  WHERE true
  ON CONFLICT (group_id, topic) DO UPDATE
    SET topic_id = excluded.topic_id, partitions_seen = excluded.partitions_seen`;

// An ack may have come in since the plan was made: a policy never writes over an offset that it has not seen.
const RESETS_TO_APPLY = `
  FROM ${inOkPlans("resets")} AS reset
  LEFT JOIN committed_offsets AS c
    ON c.group_id = plan.group_id AND c.partition_id = reset.value ->> 'partitionId'
  WHERE c.committed_offset IS reset.value ->> 'from'`;

// An operator's reason may be long and the partitions many: a cause is named by its place among `causes`.
const RECORD_RESETS = `
  INSERT INTO offset_history (group_id, topic, partition, previous_offset, new_offset, cause, actor, at)
  SELECT plan.group_id, reset.value ->> 'topic', reset.value ->> 'partition', reset.value ->> 'from', reset.value ->> 'to',
         :causes ->> (reset.value ->> 'cause'), reset.value ->> 'actor', (SELECT now_ms FROM clock)
  ${RESETS_TO_APPLY}`;

const COMMIT_RESETS = `
  INSERT INTO committed_offsets (group_id, partition_id, committed_offset, metadata, committed_at)
  SELECT plan.group_id, reset.value ->> 'partitionId', reset.value ->> 'to', NULL, (SELECT now_ms FROM clock)
  ${RESETS_TO_APPLY}
  ON CONFLICT (group_id, partition_id) DO UPDATE
    SET committed_offset = excluded.committed_offset, metadata = NULL, committed_at = excluded.committed_at`;

const FREE_PARTITIONS = `
  DELETE FROM assignments
  WHERE (group_id, partition_id) IN (
    SELECT plan.group_id, freed.value FROM ${inOkPlans("freed")} AS freed)`;

const REVOKE_PARTITIONS = `
  UPDATE assignments SET revoke_deadline = (SELECT now_ms FROM clock) + :deadline_ms
  WHERE (group_id, partition_id) IN (
    SELECT plan.group_id, revoked.value FROM ${inOkPlans("revoked")} AS revoked)`;

// Gains are [partition id, member id, the policy that a reset of this plan applied, where it led].
const ASSIGN_PARTITIONS = `
  INSERT INTO assignments (group_id, partition_id, member_id, generation, reset)
  SELECT plan.group_id, gain.value ->> 0, gain.value ->> 1, last + plan.base + 2 + gain.key,
         CASE WHEN c.committed_offset = gain.value ->> 3 THEN gain.value -> 2 END
  FROM ${inOkPlans("gains")} AS gain, sequence
  LEFT JOIN committed_offsets AS c ON c.group_id = plan.group_id AND c.partition_id = gain.value ->> 0
  WHERE true
  ON CONFLICT (group_id, partition_id) DO UPDATE
    SET member_id = excluded.member_id, generation = excluded.generation, reset = excluded.reset,
        revoke_deadline = NULL`;

// Numbers of plans that do not hold are lost, which is no harm.
const ADVANCE_SEQUENCE = "UPDATE sequence SET last = last + :used";

const READ_CLOCK = "SELECT now_ms FROM clock";

const END_CHECKS = `
  DELETE FROM guard WHERE op IN (SELECT value ->> 'op' FROM json_each(:plans))`;

export interface OffsetReset {
  readonly topic: string;
  readonly partition: number;
  readonly partitionId: number;
  readonly from: number | null;
  readonly to: number;
  /** The policy, for the owner to be told of; absent where an operator did it. */
  readonly policy?: unknown;
  readonly cause: string;
  readonly actor: string;
  /** The whole plan does nothing where the committed offset is not `from` any more. */
  readonly isExact: boolean;
}

export interface PlannedChange {
  /** WriteQueue.nextOp(). */
  readonly op: number;
  /** What it was planned from. */
  readonly picture: GroupPicture;
  readonly plan: Omit<GroupPlan, "refusals" | "joinedBefore">;
  readonly resets: readonly OffsetReset[];
  /** What the next picture is to show beside what members subscribe to. */
  readonly topics: readonly string[];
}

export interface ChangedGroup {
  /**
   * The new one, which is also the number of the memberships that it began; undefined, with nothing written, where the
   * group is no longer the one that was planned from.
   */
  readonly version: number | undefined;
  /** It was to end leases, and written so long after it was planned that it did not. */
  readonly isLate: boolean;
  /** What the group is now; undefined where that is too much to be told with the outcome. */
  readonly picture: GroupPicture | undefined;
}

/**
 * Plans of different groups, each written whole or not at all. Settles to one outcome for each, in order.
 * `processId`: the server process that the new members hang on; null where there is only one.
 */
export function writeGroups(
  changes: readonly PlannedChange[],
  processId: string | null,
): Operation<readonly ChangedGroup[]> {
  const causes = [...new Set(changes.flatMap(({ resets }) => resets.map(({ cause }) => cause)))];
  let used = 0;
  const rows = changes.map((change) => {
    const row = planRow(change, { base: used, causes });
    used += 1 + change.plan.gains.length;
    return row;
  });
  const plansWith = (...lists: readonly PlanList[]) =>
    JSON.stringify(
      rows.map(({ lists: all, ...plan }) => ({
        ...plan,
        ...Object.fromEntries(lists.map((name) => [name, all[name]])),
      })),
    );
  const forEachOf = (list: PlanList, sqls: readonly string[], args: Statement["args"] = {}) =>
    rows.some(({ lists }) => lists[list].length > 0)
      ? sqls.map((sql) => ({ sql, args: { plans: plansWith(list), ...args } }))
      : [];
  const joins = forEachOf("joins", [INSERT_MEMBERS], { process_id: processId });
  const bytesShown = changes.reduce((sum, { picture }) => sum + pictureBytes(picture), 0);
  const areShown = bytesShown <= PICTURES_BYTES_MAX;
  const check = { plans: plansWith("gained", "expired", "exact"), plan_age_max_ms: EXPIRY_PLAN_AGE_MAX_MS };
  const statements: readonly Statement[] = [
    { sql: CHECK_PLANS, args: check },
    { sql: CHANGE_GROUPS, args: { plans: plansWith() } },
    ...forEachOf("ended", [END_MEMBERS]),
    ...(processId !== null && joins.length > 0 ? [renewProcessLease(processId)] : []),
    ...joins,
    ...forEachOf("topicsSeen", [SEE_TOPICS]),
    ...forEachOf("resets", [RECORD_RESETS], { causes: JSON.stringify(causes) }),
    ...forEachOf("resets", [COMMIT_RESETS]),
    ...forEachOf("freed", [FREE_PARTITIONS]),
    ...forEachOf("revoked", [REVOKE_PARTITIONS], { deadline_ms: REVOKE_DEADLINE_MS }),
    ...forEachOf("gains", [ASSIGN_PARTITIONS]),
    { sql: ADVANCE_SEQUENCE, args: { used } },
    { sql: END_CHECKS, args: { plans: plansWith() } },
    areShown ? pictureStatement(changes.map(questionOf)) : { sql: READ_CLOCK },
  ];
  // Repeated, it finds other versions: who asked sees in the picture what was done. An operator's reset is not asked for
  // again: the second would start where the first has led.
  const isRepeatable = changes.every(({ resets }) => !resets.some(({ isExact }) => isExact));
  return {
    statements,
    bytes: JSON.stringify(statements.map(({ args }) => args)).length,
    ...(isRepeatable && { afterLostAnswer: "repeat" as const }),
    settle: (results) => {
      const changed = results[1] ?? [];
      const last = results.at(-1) ?? [];
      const versions = new Map(changed.map((row) => [String(row.group_id), numberColumn(row, "version")]));
      const nowMs = numberColumn(last[0], "now_ms");
      return changes.map(({ picture: planned, plan }, index) => ({
        version: versions.get(planned.group),
        isLate: plan.expiredMemberIds.length > 0 && nowMs - planned.nowMs > EXPIRY_PLAN_AGE_MAX_MS,
        picture: areShown ? pictureOf(last[index] ?? {}) : undefined,
      }));
    },
  };
}

type PlanList = keyof ReturnType<typeof planRow>["lists"];

function pictureBytes({ members, partitions }: GroupPicture): number {
  return memberBytes(members) + partitionBytes(partitions);
}

function questionOf({ picture: { group }, topics }: PlannedChange): GroupQuestion {
  return { group, topics };
}

function planRow(
  { op, picture: { group, version, nowMs }, plan, resets }: PlannedChange,
  { base, causes }: { readonly base: number; readonly causes: readonly string[] },
) {
  return {
    op,
    group,
    version,
    plannedAt: nowMs,
    base,
    lists: {
      expired: plan.expiredMemberIds,
      ended: plan.endedMemberIds,
      joins: plan.joins.map(joinedRow),
      topicsSeen: plan.topicsSeen,
      resets: resets.map((reset) => ({ ...reset, cause: causes.indexOf(reset.cause) })),
      freed: plan.freedPartitionIds,
      revoked: plan.revokedPartitionIds,
      gains: gainRows(plan.gains, resets),
      gained: plan.gains.map(({ partition }) => partition.partitionId),
      exact: resets.filter(({ isExact }) => isExact).map(({ partitionId, from }) => [partitionId, from]),
    },
  };
}

function joinedRow({ memberId, request }: GroupPlan["joins"][number]) {
  const { instanceId = null, topics, policies, sessionTimeoutMs } = request;
  return { memberId, instanceId, topics, policies, sessionTimeoutMs };
}

function gainRows(gains: GroupPlan["gains"], resets: readonly OffsetReset[]) {
  const resetsById = new Map(resets.map((reset) => [reset.partitionId, reset]));
  return gains.map(({ partition: { partitionId }, member }) => {
    const reset = resetsById.get(partitionId);
    return [
      partitionId,
      member.memberId,
      reset?.policy ?? null,
      reset?.policy === undefined ? null : reset.to,
    ];
  });
}
