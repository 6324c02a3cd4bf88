// The client's side of a subscription: subscribe, what the join brings, unsubscribe.

import type { ResetPolicies, ServerFrame, SubscribeFrame, UnsubscribeFrame } from "../../protocol/frames.ts";
import {
  SESSION_TIMEOUT_DEFAULT_MS,
  SUBSCRIPTIONS_PER_SOCKET_MAX,
  WINDOW_BYTES_DEFAULT,
  WINDOW_RECORDS_DEFAULT,
} from "../../protocol/limits.ts";
import type { JoinedPartition, JoinResult } from "../membership.ts";
import { Problem } from "../problem.ts";
import { DEFAULT_SUBSCRIPTION, errorFrame, unknownSubscription, unsubscribed } from "./answers.ts";
import { letGo } from "./endings.ts";
import type { SessionEffect, Surroundings } from "./events.ts";
import { heartbeatOf, nextAlarm } from "./heartbeat.ts";
import {
  find,
  membershipOf,
  partitionKey,
  refOf,
  type Session,
  type Subscription,
  type SubscriptionRef,
} from "./state.ts";
import { createDelivery, type PartitionDelivery } from "./window.ts";

export function handleSubscribe(
  session: Session,
  frame: SubscribeFrame,
  around: Surroundings,
): readonly SessionEffect[] {
  const name = frame.subscription ?? DEFAULT_SUBSCRIPTION;
  const refusal = refuseSubscribe(session, name);
  if (refusal) return [errorFrame(refusal, { name, id: frame.id })];
  session.lastSerial += 1;
  const subscription = createSubscription(name, session.lastSerial, frame);
  session.subscriptions.set(name, subscription);
  const { group, sessionTimeoutMs } = subscription;
  const { topics, memberId, instanceId } = frame;
  const request = {
    group,
    topics,
    memberId,
    instanceId,
    sessionTimeoutMs,
    policies: policiesOf(frame.reset),
  };
  return [{ type: "join", ref: refOf(subscription), request }, nextAlarm(session, around)];
}

function refuseSubscribe(session: Session, name: string): Problem | undefined {
  if (session.subscriptions.has(name)) {
    return new Problem(
      "conflict",
      `This socket already has a subscription "${name}": unsubscribe it, or choose a name`,
    );
  }
  if (session.subscriptions.size >= SUBSCRIPTIONS_PER_SOCKET_MAX) {
    return new Problem(
      "bad_request",
      `A socket carries at most ${SUBSCRIPTIONS_PER_SOCKET_MAX} subscriptions`,
    );
  }
  return undefined;
}

function createSubscription(name: string, serial: number, frame: SubscribeFrame): Subscription {
  return {
    name,
    serial,
    group: frame.group,
    isStatic: frame.instanceId !== undefined,
    sessionTimeoutMs: frame.sessionTimeoutMs ?? SESSION_TIMEOUT_DEFAULT_MS,
    subscribeId: frame.id,
    delivery: createDelivery({
      records: frame.window?.records ?? WINDOW_RECORDS_DEFAULT,
      bytes: frame.window?.bytes ?? WINDOW_BYTES_DEFAULT,
    }),
    partitions: new Map(),
    member: undefined,
    leaving: undefined,
  };
}

function policiesOf(reset: SubscribeFrame["reset"]): ResetPolicies {
  if (typeof reset === "string") return { missing: reset, outOfRange: reset };
  return { missing: reset?.missing ?? "earliest", outOfRange: reset?.outOfRange ?? "earliest" };
}

export function handleJoined(
  session: Session,
  ref: SubscriptionRef,
  result: JoinResult,
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (!subscription) return [];
  const { name, sessionTimeoutMs, subscribeId: id } = subscription;
  subscription.member = { memberId: result.memberId, membership: result.membership };
  if (session.isClosed) return [letGo(subscription, subscription.member)];
  const unplacedIds = new Set(result.unplaced.map(({ partitionId }) => partitionId));
  for (const partition of result.partitions) {
    addPartition(
      subscription,
      partition,
      unplacedIds.has(partition.partitionId) ? null : partition.committedOffset,
    );
  }
  const subscribed: ServerFrame = {
    type: "subscribed",
    id,
    subscription: name,
    memberId: result.memberId,
    heartbeatMs: heartbeatOf(sessionTimeoutMs),
    sessionTimeoutMs,
    durability: session.durability,
  };
  return [
    { type: "send", frame: subscribed },
    { type: "send", frame: assignedFrame(subscription, result) },
    ...result.unplaced.map((unplaced) =>
      errorFrame(new Problem(unplaced.code, unplaced.message), { name, ...unplaced }),
    ),
    ...(subscription.leaving ? handleUnsubscribe(session, subscription.leaving) : []),
  ];
}

function addPartition(subscription: Subscription, joined: JoinedPartition, position: number | null): void {
  const { topic, partition, partitionId, generation } = joined;
  const added: PartitionDelivery = {
    topic,
    partition,
    partitionId,
    generation,
    position,
    furthest: position ?? -1,
    sent: [],
    phase: "ready",
    nextRecordBytes: 0,
  };
  subscription.partitions.set(partitionKey(topic, partition), added);
  if (position !== null) subscription.delivery.turns.push(added);
}

function assignedFrame(subscription: Subscription, { partitions, resets }: JoinResult): ServerFrame {
  const policyByPartition = new Map(resets.map(({ partitionId, policy }) => [partitionId, policy]));
  return {
    type: "assigned",
    subscription: subscription.name,
    partitions: partitions.map((joined) => ({
      topic: joined.topic,
      topicId: joined.topicId,
      partition: joined.partition,
      generation: joined.generation,
      position: subscription.partitions.get(partitionKey(joined.topic, joined.partition))?.position ?? null,
      committedOffset: joined.committedOffset,
      metadata: joined.metadata ?? undefined,
      logStartOffset: joined.logStartOffset,
      logEndOffset: joined.logEndOffset,
      reset: policyByPartition.get(joined.partitionId),
    })),
  };
}

export function handleJoinFailed(
  session: Session,
  ref: SubscriptionRef,
  problem: Problem,
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (!subscription) return [];
  session.subscriptions.delete(subscription.name);
  const { name, subscribeId: id, leaving } = subscription;
  const refused = errorFrame(problem, { name, id });
  return leaving ? [refused, unsubscribed({ name, id: leaving.id })] : [refused];
}

export function handleUnsubscribe(session: Session, frame: UnsubscribeFrame): readonly SessionEffect[] {
  const name = frame.subscription ?? DEFAULT_SUBSCRIPTION;
  const subscription = session.subscriptions.get(name);
  if (!subscription || (subscription.leaving && subscription.leaving !== frame)) {
    return [errorFrame(unknownSubscription(name), { name, id: frame.id })];
  }
  if (!subscription.member) {
    subscription.leaving = frame;
    return [];
  }
  session.subscriptions.delete(name);
  return [
    { type: "stopWaiting", ref: refOf(subscription) },
    {
      type: "leave",
      member: membershipOf(subscription, subscription.member),
      answer: { name, id: frame.id },
    },
  ];
}
