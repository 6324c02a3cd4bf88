// Where a subscription's partition goes on, when its client or a policy says so: looked up, and committed where a
// policy has to give a group's unusable offset another place.

import { policyOffset, policyText } from "../core/places.ts";
import { Problem } from "../core/problem.ts";
import type { LocatedFacts, Reposition, RepositionRequest, Seek } from "../core/session/events.ts";
import { commitPolicy } from "../store/commits.ts";
import type { Db } from "../store/db.ts";
import { readPlaceFacts } from "../store/places.ts";
import type { WriteQueue } from "../store/write-queue.ts";

/** An ack came in between each time. */
const REPOSITION_ATTEMPTS_MAX = 5;

export interface PositionDeps {
  readonly db: Db;
  readonly queue: WriteQueue;
}

/** Rejects with a DbError, or with `not_assigned` where the partition is gone. Writes nothing. */
export async function locate({ db }: PositionDeps, seek: Seek): Promise<LocatedFacts> {
  const { topic, partition, partitionId, group, place } = seek;
  const facts = await readPlaceFacts(db, { partitionId, group, place });
  if (facts) return facts;
  throw new Problem("not_assigned", `Topic "${topic}" partition ${partition} is gone`, { topic, partition });
}

/**
 * Undefined where the partition is gone or somebody else's: word of that comes on another way. Rejects with a DbError,
 * or with `unavailable` where acks were faster.
 */
export async function reposition(
  { db, queue }: PositionDeps,
  { partitionId, generation, member, policy }: RepositionRequest,
): Promise<Reposition | undefined> {
  let foundBefore: number | undefined;
  for (let attempt = 0; attempt < REPOSITION_ATTEMPTS_MAX; attempt += 1) {
    const facts = await readPlaceFacts(db, { partitionId, group: member?.group, place: policy });
    if (!facts) return undefined;
    if (policy === "none") return { ...facts, position: null, policy };
    const position = policyOffset(policy, facts);
    const from = facts.committedOffset;
    if (!member || from === null || isUsable(from, facts)) return { ...facts, position, policy };
    if (from === foundBefore) return undefined; // nothing came in between: the generation is another
    foundBefore = from;
    const cause = `outOfRange: ${policyText(policy)}`;
    const commit = { group: member.group, partitionId, generation, from, to: position, cause };
    if (await queue.submit(commitPolicy(commit)))
      return { ...facts, committedOffset: position, metadata: null, position, policy };
  }
  throw new Problem("unavailable", `Acks came in between ${REPOSITION_ATTEMPTS_MAX} times`);
}

function isUsable(
  committedOffset: number,
  { logStartOffset, logEndOffset }: Pick<LocatedFacts, "logStartOffset" | "logEndOffset">,
): boolean {
  return committedOffset >= logStartOffset && committedOffset <= logEndOffset;
}
