// Memberships over time: leases that are renewed, and the ends of those that are not. With groups.ts it owns `members`
// and `assignments`. All times are the database's.

import type { MembershipRef } from "../core/session/state.ts";
import { type Db, numberColumn, type Row, type SqlValue } from "./db.ts";
import type { Operation } from "./write-queue.ts";

const RENEW_LEASE = `
  UPDATE members SET lease_expires_at = (SELECT now_ms FROM clock) + session_timeout_ms
  WHERE group_id = :group_id AND member_id = :member_id AND membership = :membership
  RETURNING membership`;

/** Settles to false where the membership has ended. */
export function renewLease(member: MembershipRef): Operation<boolean> {
  const args = membershipArgs(member);
  return { statements: [{ sql: RENEW_LEASE, args }], bytes: 0, settle: ([rows]) => rows?.length === 1 };
}

// Each names the members that end by a condition over `members AS m`; the members go last, as the others look there.
const endStatements = (condition: string) => ({
  bumpVersions: `
    UPDATE groups SET version = (SELECT last + 1 FROM sequence)
    WHERE group_id IN (SELECT m.group_id FROM members AS m WHERE ${condition})`,
  advanceSequence: `
    UPDATE sequence SET last = last + 1
    WHERE EXISTS (SELECT 1 FROM members AS m WHERE ${condition})`,
  deleteAssignments: `
    DELETE FROM assignments
    WHERE (group_id, member_id) IN (SELECT m.group_id, m.member_id FROM members AS m WHERE ${condition})`,
  deleteMembers: `
    DELETE FROM members AS m WHERE ${condition}
    RETURNING group_id, member_id, membership`,
});

const END_MEMBERSHIP = endStatements(
  "m.group_id = :group_id AND m.member_id = :member_id AND m.membership = :membership",
);
// Time goes on between the statements of a transaction: who is expired is decided once, by the first.
const MARK_EXPIRED = `
  UPDATE members SET lease_expires_at = 0 WHERE lease_expires_at <= (SELECT now_ms FROM clock)`;
const END_EXPIRED = endStatements("m.lease_expires_at = 0");
const END_WITHOUT_INSTANCE = endStatements("m.instance_id IS NULL");

/** Does nothing where the membership is not that one any more: a leave may come after a rejoin. */
export function endMembership(member: MembershipRef): Operation<readonly MembershipRef[]> {
  return endOperation(END_MEMBERSHIP, membershipArgs(member));
}

/** Ends every membership whose lease has run out. */
export function endExpiredMemberships(): Operation<readonly MembershipRef[]> {
  const end = endOperation(END_EXPIRED, {});
  return {
    ...end,
    statements: [{ sql: MARK_EXPIRED }, ...end.statements],
    settle: ([, ...results]) => end.settle(results),
  };
}

/** For a server that opens an embedded file: the sockets of the members that it finds are gone. */
export function endMembershipsWithoutInstance(): Operation<readonly MembershipRef[]> {
  return endOperation(END_WITHOUT_INSTANCE, {});
}

function endOperation(
  sql: ReturnType<typeof endStatements>,
  args: Readonly<Record<string, SqlValue>>,
): Operation<readonly MembershipRef[]> {
  const order = [sql.bumpVersions, sql.advanceSequence, sql.deleteAssignments, sql.deleteMembers];
  return {
    statements: order.map((statement) => ({ sql: statement, args })),
    bytes: 0,
    settle: (results) => (results[3] ?? []).map(membershipOf),
  };
}

const NEXT_EXPIRY = `
  SELECT min(m.lease_expires_at) - (SELECT now_ms FROM clock) AS in_ms
  FROM members AS m`;

/** When the next lease runs out, as it stands; undefined while there are no members. */
export async function msUntilNextExpiry(db: Db): Promise<number | undefined> {
  const [row] = await db.read({ sql: NEXT_EXPIRY });
  return typeof row?.in_ms === "number" ? Math.max(0, row.in_ms) : undefined;
}

function membershipOf(row: Row): MembershipRef {
  return {
    group: String(row.group_id),
    memberId: String(row.member_id),
    membership: numberColumn(row, "membership"),
  };
}

function membershipArgs({ group, memberId, membership }: MembershipRef) {
  return { group_id: group, member_id: memberId, membership };
}
