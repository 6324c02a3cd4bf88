// Owns `processes`: the server processes on a shared database, each alive by a lease of its own. When that runs out the
// memberships that hang on the process end, as with a socket that closes. (What leases get or lose after an outage, or
// where the clock was set back, leases.ts writes here too.)

import { PROCESS_LEASE_MS } from "../protocol/limits.ts";
import type { Statement } from "./db.ts";
import type { Operation } from "./operations.ts";

const RENEW_LEASE = `
  INSERT INTO processes (process_id, lease_expires_at) SELECT :process_id, now_ms + :lease_ms FROM clock
  WHERE true
  ON CONFLICT (process_id) DO UPDATE
    SET lease_expires_at = max(lease_expires_at, excluded.lease_expires_at), has_grace = 0`;

// Whoever has members left may come back to them.
const FORGET_DEAD = `
  DELETE FROM processes
  WHERE lease_expires_at <= (SELECT now_ms FROM clock)
    AND NOT EXISTS (SELECT 1 FROM members AS m WHERE m.process_id = processes.process_id)`;

const END_PROCESS = "DELETE FROM processes WHERE process_id = :process_id";

// So that other processes look at them. Where there are none a number is lost, which is no harm.
const CHANGE_GROUPS = `
  UPDATE groups SET version = (SELECT last + 1 FROM sequence)
  WHERE group_id IN (SELECT group_id FROM members WHERE process_id = :process_id AND instance_id IS NULL)`;
const ADVANCE_SEQUENCE = "UPDATE sequence SET last = last + 1";

export function renewProcessLease(processId: string): Statement {
  return { sql: RENEW_LEASE, args: { process_id: processId, lease_ms: PROCESS_LEASE_MS } };
}

/** It lives; those that do not and have no members any more are forgotten. */
export function keepProcess(processId: string): Operation<void> {
  return operationOf([renewProcessLease(processId), { sql: FORGET_DEAD }]);
}

/** It is about to stop: what hangs on it ends now. */
export function endProcess(processId: string): Operation<void> {
  const args = { process_id: processId };
  return operationOf([{ sql: END_PROCESS, args }, { sql: CHANGE_GROUPS, args }, { sql: ADVANCE_SEQUENCE }]);
}

function operationOf(statements: readonly Statement[]): Operation<void> {
  return { statements, bytes: 0, afterLostAnswer: "repeat", settle: () => undefined };
}
