// Acks: judged by what the session knows, committed by what the database knows, answered when durable.

import type { ErrorCode } from "../../protocol/codes.ts";
import type { AckEntry, AckFrame, FrameId } from "../../protocol/frames.ts";
import { ACK_ENTRIES_WAITING_MAX } from "../../protocol/limits.ts";
import { Problem } from "../problem.ts";
import { DEFAULT_SUBSCRIPTION, errorFrame, unknownSubscription } from "./answers.ts";
import type { AckOutcome, AckRequest, SessionEffect, SessionEvent, Surroundings } from "./events.ts";
import { find, findOpen, partitionKey, refOf, type Session, type Subscription } from "./state.ts";
import { freeAcked, type PartitionDelivery } from "./window.ts";

export function handleAck(session: Session, frame: AckFrame, around: Surroundings): readonly SessionEffect[] {
  const name = frame.subscription ?? DEFAULT_SUBSCRIPTION;
  const { id } = frame;
  const subscription = findOpen(session, name);
  if (!subscription) return [errorFrame(unknownSubscription(name), { name, id })];
  const { waiting } = session;
  if (waiting.ackEntries + frame.offsets.length > ACK_ENTRIES_WAITING_MAX) {
    return [errorFrame(tooManyWaiting(waiting.ackEntries), { name, id })];
  }
  const acks = foldAccepted(frame.offsets.map((entry) => judgeAck(subscription, entry)));
  const ref = refOf(subscription);
  if (subscription.source.kind === "reader") {
    const outcomes = acks.map(({ refusal }) => ({ committedOffset: null, code: refusal }));
    return [answer(subscription, { name, id, acks, outcomes }, around)];
  }
  waiting.ackEntries += acks.length;
  return [{ type: "commit", ref, group: subscription.source.group, id, acks }];
}

/** What this session knows; the database judges the generation again, in the write. */
function judgeAck({ partitions }: Subscription, entry: AckEntry): AckRequest {
  const partition = partitions.get(partitionKey(entry.topic, entry.partition));
  return { ...entry, metadata: entry.metadata ?? null, refusal: refusalOf(entry, partition) };
}

function refusalOf(
  { generation, offset }: AckEntry,
  partition: PartitionDelivery | undefined,
): ErrorCode | undefined {
  if (partition?.generation !== generation) return "fenced_generation";
  return offset > partition.furthest ? "offset_out_of_range" : undefined;
}

/** A partition named twice counts once, the highest; a refused entry is answered on its own. */
function foldAccepted(acks: readonly AckRequest[]): readonly AckRequest[] {
  const highest = new Map<string, AckRequest>();
  for (const ack of acks) {
    const key = partitionKey(ack.topic, ack.partition);
    if (ack.refusal === undefined && ack.offset >= (highest.get(key)?.offset ?? 0)) highest.set(key, ack);
  }
  const accepted = new Set(highest.values());
  return acks.filter((ack) => ack.refusal !== undefined || accepted.has(ack));
}

export function handleCommitted(
  session: Session,
  { ref, id, acks, outcomes }: Extract<SessionEvent, { type: "committed" }>,
  around: Surroundings,
): readonly SessionEffect[] {
  session.waiting.ackEntries -= acks.length;
  return [answer(find(session, ref), { name: ref.name, id, acks, outcomes }, around)];
}

interface JudgedAcks {
  readonly name: string;
  readonly id: FrameId | undefined;
  readonly acks: readonly AckRequest[];
  readonly outcomes: readonly AckOutcome[];
}

/** Frees the window of what was accepted, where the subscription is still there. */
function answer(
  subscription: Subscription | undefined,
  { name, id, acks, outcomes }: JudgedAcks,
  { nowMs }: Surroundings,
): SessionEffect {
  const offsets = acks.map(({ topic, partition, generation, offset }, index) => {
    const { committedOffset = null, code } = outcomes[index] ?? {};
    const owned = subscription?.partitions.get(partitionKey(topic, partition));
    const isAccepted = code === undefined && owned?.generation === generation;
    if (subscription && owned && isAccepted) freeAcked(subscription.delivery, owned, { offset, nowMs });
    return { topic, partition, offset: committedOffset, code };
  });
  return { type: "send", frame: { type: "acked", id, subscription: name, offsets } };
}

export function handleCommitFailed(
  session: Session,
  { ref, id, acks, problem }: Extract<SessionEvent, { type: "commitFailed" }>,
): readonly SessionEffect[] {
  session.waiting.ackEntries -= acks.length;
  return [errorFrame(problem, { name: ref.name, id })];
}

function tooManyWaiting(found: number): Problem {
  return new Problem(
    "rate_limited",
    `${found} entries of acks are waiting for the disk, at most ${ACK_ENTRIES_WAITING_MAX} may: wait for \`acked\``,
  );
}
