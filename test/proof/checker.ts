// Judges a history. Pure: what it is given is all that it knows. The first names are those of Jepsen's workload for
// Kafka, the others are this log's own.

import { findAnswerAnomalies } from "./answer-checks.ts";
import { findUnaskedCommits } from "./asked-commit-checks.ts";
import { findCommitAnomalies } from "./commit-checks.ts";
import { findDeliveryAnomalies } from "./delivery-checks.ts";
import { findExactlyOnceAnomalies } from "./exactly-once-checks.ts";
import type { History } from "./history.ts";
import { findKeepAnomalies } from "./keep-checks.ts";
import { findLogAnomalies } from "./log-checks.ts";
import { findOwnershipAnomalies } from "./ownership-checks.ts";
import { findPollAnomalies } from "./poll-checks.ts";
import { gatherValues } from "./seen-values.ts";
import { findSendAnomalies } from "./send-checks.ts";
import { findStartAnomalies } from "./start-checks.ts";

export const ANOMALY_NAMES = [
  /** One offset has two values. */
  "inconsistent offsets",
  /** One value is at two offsets. */
  "duplicate",
  /** What was acknowledged is not in the log, and was not deleted. */
  "lost write",
  /** What was acknowledged was delivered to nobody, or not to a group that has settled. */
  "unseen",
  /** What was refused is seen. */
  "aborted read",
  /** Offsets in one frame do not rise. */
  "internal non-monotonic poll",
  /** A frame begins below what the one before ended with. */
  "external non-monotonic poll",
  /** One frame passes over a record. */
  "internal poll skip",
  /** A record between two frames, or between a position and the first frame, was passed over. */
  "external poll skip",
  /** The records of a producer are not in the order of its sending. */
  "non-monotonic send",
  /** A committed offset is lower than before, and no reset says why. */
  "commit went back",
  /** A committed offset is higher than anything that was sent to the group. */
  "commit past delivered",
  /** One generation of a partition has two owners, or a later owner an earlier generation. */
  "split ownership",
  /** An ack, or a commit in a transaction, in a generation that was over has been accepted. */
  "stale commit accepted",
  /** A record below the committed offset was not delivered to the group, and nothing passed over it. */
  "undelivered below committed",
  /** An ownership begins where neither the committed offset nor a policy says. */
  "reset started at the wrong place",
  /** Between log start and log end an offset has no record and compaction does not say why, or these went back. */
  "gap in offsets",
  /** A value is seen that nobody has sent, or at another place than its producer was told. */
  "value changed",
  /** A group that had time to finish has not acknowledged everything. */
  "unacknowledged at the end",
  /** A group that commits in transactions has made two values of one record, and nobody has sent it back. */
  "processed twice",
  /** A group that commits in transactions has committed a record and made nothing of it. */
  "never processed",
  /** The log start has moved up, and neither a trim nor the topic's retention says why. */
  "kept too little",
  /** Compaction has deleted a record, and its key has no later one. */
  "lost newest of a key",
  /** Compaction has deleted the last record of a partition. */
  "lost last record",
  /** A tombstone has not been there for `tombstoneMs`, or what a record was deleted for not for `minLagMs`. */
  "deleted too early",
  /** A topic is compacted, and one of its records has no key. */
  "keyless in a compacted log",
  /** A group has expired that had members, or not long enough after it had some. */
  "group expired in use",
] as const;

export type AnomalyName = (typeof ANOMALY_NAMES)[number];

export interface Anomaly {
  readonly name: AnomalyName;
  /** What was expected and what was found, for whoever reads the report. */
  readonly says: string;
}

/** In no order that means anything; empty for a good history. */
export function findAnomalies(history: History): readonly Anomaly[] {
  const seen = gatherValues(history);
  return [
    ...findLogAnomalies(history, seen),
    ...findAnswerAnomalies(seen),
    ...findSendAnomalies(history, seen),
    ...findPollAnomalies(history),
    ...findUnaskedCommits(history),
    ...findCommitAnomalies(history),
    ...findStartAnomalies(history),
    ...findDeliveryAnomalies(history),
    ...findOwnershipAnomalies(history),
    ...findExactlyOnceAnomalies(history, seen),
    ...findKeepAnomalies(history, seen),
  ];
}
