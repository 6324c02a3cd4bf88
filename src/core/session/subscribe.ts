// The client's side of a subscription: subscribe, what opening it brings, unsubscribe.

import type { AckMode, SubscribeFrame, UnsubscribeFrame } from "../../protocol/frames.ts";
import {
  SESSION_TIMEOUT_DEFAULT_MS,
  SUBSCRIPTIONS_PER_SOCKET_MAX,
  WINDOW_BYTES_DEFAULT,
  WINDOW_RECORDS_DEFAULT,
} from "../../protocol/limits.ts";
import type { ResetPolicies } from "../../protocol/places.ts";
import { Problem } from "../problem.ts";
import type { ReaderPartition } from "../readers.ts";
import { DEFAULT_SUBSCRIPTION, errorFrame, unknownSubscription, unsubscribed } from "./answers.ts";
import { assignGained, assignRead, gainMore } from "./assigned.ts";
import { letGo } from "./endings.ts";
import type { JoinResult, SessionEffect, SessionEvent, Surroundings } from "./events.ts";
import { heartbeatOf, noteHeartbeat } from "./heartbeat.ts";
import { applyOwnership } from "./rebalance.ts";
import {
  find,
  findPartition,
  memberOf,
  refOf,
  type Session,
  type Subscription,
  type SubscriptionRef,
} from "./state.ts";
import { createDelivery } from "./window.ts";

export function handleSubscribe(
  session: Session,
  frame: SubscribeFrame,
  around: Surroundings,
): readonly SessionEffect[] {
  const name = frame.subscription ?? DEFAULT_SUBSCRIPTION;
  const refusal = refuseSubscribe(session, name) ?? refuseTwice(session, frame);
  if (refusal) return [errorFrame(refusal, { name, id: frame.id })];
  session.lastSerial += 1;
  const subscription = createSubscription(name, session.lastSerial, frame);
  session.subscriptions.set(name, subscription);
  return [openingOf(subscription, frame), ...noteHeartbeat(session, around)];
}

function refuseSubscribe(session: Session, name: string): Problem | undefined {
  if (session.isDraining) return new Problem("unavailable", "The server is stopping: reconnect");
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

/** A socket that shares a topic with itself: one membership would wait for the other's partitions. */
function refuseTwice(
  { subscriptions }: Session,
  { group, topics, memberId, instanceId }: SubscribeFrame,
): Problem | undefined {
  for (const { name, source, topics: others } of subscriptions.values()) {
    if (source.kind !== "group" || source.group !== group) continue;
    const isTakenOver =
      (memberId !== undefined && memberId === source.member?.memberId) ||
      (instanceId !== undefined && instanceId === source.instanceId);
    const topic = isTakenOver ? undefined : topics.find((each) => others.includes(each));
    if (topic === undefined) continue;
    const why = `Cannot subscribe to topic "${topic}" in group "${group}": subscription "${name}" of this socket does already`;
    return new Problem("conflict", why, { topic, group });
  }
  return undefined;
}

function createSubscription(name: string, serial: number, frame: SubscribeFrame): Subscription {
  return {
    name,
    serial,
    subscribeId: frame.id,
    topics: frame.topics,
    source: sourceOf(frame),
    policies: policiesOf(frame.reset),
    ack: frame.ack ?? defaultAck(frame),
    ackTimeoutMs: frame.ackTimeoutMs,
    sessionTimeoutMs: frame.sessionTimeoutMs ?? SESSION_TIMEOUT_DEFAULT_MS,
    delivery: createDelivery({
      records: frame.window?.records ?? WINDOW_RECORDS_DEFAULT,
      bytes: frame.window?.bytes ?? WINDOW_BYTES_DEFAULT,
    }),
    partitions: new Map(),
    revoking: new Set(),
    isOpen: false,
    leaving: undefined,
    ahead: undefined,
    isStale: false,
    gains: 0,
    gonePartitionIds: new Set(),
  };
}

function sourceOf({ group, from = "earliest", instanceId }: SubscribeFrame): Subscription["source"] {
  if (group === undefined) return { kind: "reader", from, lastGeneration: 0 };
  return { kind: "group", group, instanceId, member: undefined };
}

/** A reader has nothing to commit: unless it wants to hold the records back, it acknowledges nothing. */
function defaultAck({ group }: SubscribeFrame): AckMode {
  return group === undefined ? "none" : "manual";
}

function policiesOf(reset: SubscribeFrame["reset"]): ResetPolicies {
  if (reset === undefined) return { missing: "earliest", outOfRange: "earliest" };
  if (typeof reset === "string" || "timestamp" in reset || "ago" in reset)
    return { missing: reset, outOfRange: reset };
  return { missing: reset.missing ?? "earliest", outOfRange: reset.outOfRange ?? "earliest" };
}

function openingOf(
  { source, topics, policies, sessionTimeoutMs, ...subscription }: Subscription,
  { memberId, instanceId }: SubscribeFrame,
): SessionEffect {
  const ref = refOf(subscription);
  if (source.kind === "reader") return { type: "openReader", ref, request: { topics, from: source.from } };
  const { group } = source;
  const request = { group, topics, memberId, instanceId, sessionTimeoutMs, policies };
  return { type: "join", ref, request };
}

export function handleJoined(
  session: Session,
  ref: SubscriptionRef,
  result: JoinResult,
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (subscription?.source.kind !== "group") return [];
  const { source } = subscription;
  const { memberId, membership } = result;
  source.member = { group: source.group, memberId, membership };
  if (session.isClosed) return [letGo(subscription, source)];
  return [
    ...open(session, subscription, memberId),
    ...assignGained(subscription, result.owned.gained),
    ...applyOwnership(subscription, { ...result.owned, gained: [] }),
  ];
}

export function handleReaderOpened(
  session: Session,
  ref: SubscriptionRef,
  partitions: readonly ReaderPartition[],
): readonly SessionEffect[] {
  const subscription = find(session, ref);
  if (!subscription || session.isClosed) return [];
  return [
    ...open(session, subscription),
    ...assignRead(subscription, partitions),
    ...(subscription.isStale && !subscription.leaving ? gainMore(subscription) : []), // it came while opening
  ];
}

function open(session: Session, subscription: Subscription, memberId?: string): readonly SessionEffect[] {
  const { name, sessionTimeoutMs, subscribeId: id } = subscription;
  subscription.isOpen = true;
  return [
    {
      type: "send",
      frame: {
        type: "subscribed",
        id,
        subscription: name,
        memberId,
        heartbeatMs: heartbeatOf(sessionTimeoutMs),
        sessionTimeoutMs,
        durability: session.durability,
      },
    },
  ];
}

export function handleOpenFailed(
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
  if (!subscription || subscription.leaving)
    return [errorFrame(unknownSubscription(name), { name, id: frame.id })];
  subscription.leaving = frame;
  return [];
}

/** Who has unsubscribed goes: not before it has opened, and at most once not before it was sent what counts as processed. */
export function leaveFurther(session: Session): readonly SessionEffect[] {
  return [...session.subscriptions.values()].flatMap((subscription) => {
    const { leaving, isOpen, ahead } = subscription;
    if (!leaving || !isOpen || (ahead && findPartition(subscription, ahead.ref))) return [];
    return leave(session, subscription, leaving);
  });
}

function leave(
  session: Session,
  subscription: Subscription,
  { id }: UnsubscribeFrame,
): readonly SessionEffect[] {
  const { name } = subscription;
  session.subscriptions.delete(name);
  const answer = { name, id };
  const member = memberOf(subscription);
  if (member) session.waiting.leaves += 1;
  return [
    { type: "stopWaiting", ref: refOf(subscription) },
    member ? { type: "leave", member, answer } : unsubscribed(answer),
  ];
}

export function handleLeft(
  session: Session,
  { name, id, problem }: Extract<SessionEvent, { type: "left" }>,
): readonly SessionEffect[] {
  session.waiting.leaves -= 1;
  return [problem ? errorFrame(problem, { name, id }) : unsubscribed({ name, id })];
}
