// Memberships over time: leases that are renewed, and what is due. With groups.ts it owns `members` and `assignments`.
// All times are the database's. (Leases and deadlines that are over are carried out by the plan of their group; how
// server processes keep their leases is in processes.ts.)

import type { MembershipRef } from "../core/session/state.ts";
import { HEARTBEATS_PER_SESSION_TIMEOUT, PROCESS_LEASE_MS, REVOKE_DEADLINE_MS } from "../protocol/limits.ts";
import { type Db, numberColumn } from "./db.ts";
import type { Operation } from "./operations.ts";
import { renewProcessLease } from "./processes.ts";

const RENEW_LEASE = `
  UPDATE members SET lease_expires_at = (SELECT now_ms FROM clock) + session_timeout_ms, has_grace = 0
  WHERE group_id = :group_id AND member_id = :member_id AND membership = :membership
  RETURNING membership`;

/** Settles to false where the membership has ended. */
export function renewLease({ group, memberId, membership }: MembershipRef): Operation<boolean> {
  const args = { group_id: group, member_id: memberId, membership };
  return {
    statements: [{ sql: RENEW_LEASE, args }],
    bytes: 0,
    afterLostAnswer: "repeat",
    settle: ([rows]) => rows?.length === 1,
  };
}

// ── after an outage ──────────────────────────────────────────────────────────────────────────────────────

const RENEW_OWN = `
  UPDATE members SET lease_expires_at = (SELECT now_ms FROM clock) + session_timeout_ms, has_grace = 0
  WHERE (group_id, member_id, membership) IN (
    SELECT own.value ->> 0, own.value ->> 1, own.value ->> 2 FROM json_each(:own) AS own)`;

const GRACE_ENDS_AT = `(SELECT now_ms FROM clock) + session_timeout_ms / ${HEARTBEATS_PER_SESSION_TIMEOUT}`;

// Once, until it is renewed: one server that often loses the database must not keep the dead of others alive.
const GIVE_GRACE = `
  UPDATE members SET lease_expires_at = ${GRACE_ENDS_AT}, has_grace = 1
  WHERE lease_expires_at < ${GRACE_ENDS_AT} AND NOT has_grace`;

const GIVE_PROCESSES_GRACE = `
  UPDATE processes
  SET lease_expires_at = max(lease_expires_at, coalesce(
        (SELECT max(${GRACE_ENDS_AT}) FROM members AS m WHERE m.process_id = processes.process_id), 0)),
      has_grace = 1
  WHERE NOT has_grace`;

/**
 * The members of this process have their whole session timeout again. Everybody else's lease runs for at least one
 * heartbeat more, where it had no such grace since it was renewed.
 */
export function renewAfterOutage(own: readonly MembershipRef[], processId: string | null): Operation<void> {
  const refs = JSON.stringify(own.map(({ group, memberId, membership }) => [group, memberId, membership]));
  return {
    statements: [
      ...(processId === null ? [] : [renewProcessLease(processId)]),
      { sql: RENEW_OWN, args: { own: refs } },
      { sql: GIVE_GRACE },
      { sql: GIVE_PROCESSES_GRACE },
    ],
    bytes: refs.length,
    afterLostAnswer: "repeat",
    settle: () => undefined,
  };
}

// ── a clock that is set back ─────────────────────────────────────────────────────────────────────────────

/** Leases and deadlines that were written by a clock that was ahead are no longer than if they were written now. */
export function shortenToClock(): Operation<void> {
  return {
    statements: [
      {
        sql: `
          UPDATE members SET lease_expires_at = (SELECT now_ms FROM clock) + session_timeout_ms
          WHERE lease_expires_at > (SELECT now_ms FROM clock) + session_timeout_ms`,
      },
      {
        sql: `
          UPDATE processes SET lease_expires_at = (SELECT now_ms FROM clock) + :lease_ms
          WHERE lease_expires_at > (SELECT now_ms FROM clock) + :lease_ms`,
        args: { lease_ms: PROCESS_LEASE_MS },
      },
      {
        sql: `
          UPDATE assignments SET revoke_deadline = (SELECT now_ms FROM clock) + :deadline_ms
          WHERE revoke_deadline > (SELECT now_ms FROM clock) + :deadline_ms`,
        args: { deadline_ms: REVOKE_DEADLINE_MS },
      },
    ],
    bytes: 0,
    afterLostAnswer: "repeat",
    settle: () => undefined,
  };
}

// ── a file that is opened ────────────────────────────────────────────────────────────────────────────────

const WITHOUT_INSTANCE = "SELECT m.group_id, m.member_id FROM members AS m WHERE m.instance_id IS NULL";

const CHANGE_GROUPS = `
  UPDATE groups SET version = (SELECT last + 1 FROM sequence)
  WHERE group_id IN (SELECT group_id FROM (${WITHOUT_INSTANCE}))`;
// Where no group was changed a number is lost, which is no harm.
const ADVANCE_SEQUENCE = "UPDATE sequence SET last = last + 1";
const END_ASSIGNMENTS = `DELETE FROM assignments WHERE (group_id, member_id) IN (${WITHOUT_INSTANCE})`;
const END_MEMBERS = "DELETE FROM members WHERE instance_id IS NULL RETURNING member_id";

/**
 * For a server that opens an embedded file: the sockets of the members that it finds are gone, and nobody could come
 * back to it until now. Settles to how many memberships it has ended.
 */
export function endMembershipsWithoutInstance(): Operation<number> {
  const statements = [CHANGE_GROUPS, ADVANCE_SEQUENCE, END_ASSIGNMENTS, END_MEMBERS, GIVE_GRACE];
  return {
    statements: statements.map((sql) => ({ sql })),
    bytes: 0,
    afterLostAnswer: "repeat",
    settle: (results) => results[statements.indexOf(END_MEMBERS)]?.length ?? 0,
  };
}

// ── a shared database that is opened ─────────────────────────────────────────────────────────────────────

const NOBODY_WAS_THERE =
  "NOT EXISTS (SELECT 1 FROM processes AS alive, clock WHERE alive.lease_expires_at > clock.now_ms)";

/**
 * For a server that opens a shared database. Where no other process was alive, leases may have run out in an outage
 * that nobody has seen: those that are left have another heartbeat, once until they are renewed.
 */
export function greetProcesses(): Operation<void> {
  return {
    statements: [
      { sql: `${GIVE_GRACE} AND ${NOBODY_WAS_THERE}` },
      { sql: `${GIVE_PROCESSES_GRACE} AND ${NOBODY_WAS_THERE}` },
    ],
    bytes: 0,
    afterLostAnswer: "repeat",
    settle: () => undefined,
  };
}

// ── what is due ──────────────────────────────────────────────────────────────────────────────────────────

// A server process that has ended itself has no lease any more.
const READ_DUE = `
  SELECT
    clock.now_ms,
    (SELECT json_group_array(group_id) FROM (
       SELECT group_id FROM members WHERE lease_expires_at <= clock.now_ms
       UNION SELECT group_id FROM members
             WHERE process_id IS NOT NULL AND instance_id IS NULL
               AND process_id NOT IN (SELECT process_id FROM processes WHERE lease_expires_at > clock.now_ms)
       UNION SELECT group_id FROM assignments WHERE revoke_deadline <= clock.now_ms)) AS groups,
    (SELECT min(lease_expires_at) FROM members WHERE lease_expires_at > clock.now_ms) AS next_lease,
    (SELECT min(lease_expires_at) FROM processes WHERE lease_expires_at > clock.now_ms) AS next_process_lease,
    (SELECT min(revoke_deadline) FROM assignments WHERE revoke_deadline > clock.now_ms) AS next_deadline
  FROM clock`;

export interface Due {
  /** ms since 1970, on the database's clock */
  readonly nowMs: number;
  /** They have a lease or a deadline that is over. */
  readonly groups: readonly string[];
  /** Until the next one is; undefined while there is none. */
  readonly nextInMs: number | undefined;
}

export async function readDue(db: Db): Promise<Due> {
  const [row = {}] = await db.read({ sql: READ_DUE });
  const nowMs = numberColumn(row, "now_ms");
  const moments = [row.next_lease, row.next_process_lease, row.next_deadline].filter(
    (moment) => typeof moment === "number",
  );
  return {
    nowMs,
    groups: JSON.parse(String(row.groups)),
    nextInMs: moments.length > 0 ? Math.min(...moments) - nowMs : undefined,
  };
}
