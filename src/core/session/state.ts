// What a session remembers: its subscriptions, their partitions, and when the client was last heard of.

import type { Durability, FrameId, UnsubscribeFrame } from "../../protocol/frames.ts";
import type { Delivery, PartitionDelivery } from "./window.ts";

export interface Session {
  readonly durability: Durability;
  readonly subscriptions: Map<string, Subscription>;
  /** Numbers subscriptions, so that a late result of an earlier one of the same name is known as such. */
  lastSerial: number;
  lastSeenAtMs: number;
  pingsUnanswered: number;
  /** Entries of acks that were not answered yet. */
  ackEntriesWaiting: number;
  /** The client was heard of since its leases were renewed. */
  isHeard: boolean;
  /** The socket is gone; joins that are still on their way are let go when they arrive. */
  isClosed: boolean;
}

export interface Subscription {
  readonly name: string;
  readonly serial: number;
  readonly group: string;
  /** Has an instanceId: the membership outlives the socket. */
  readonly isStatic: boolean;
  readonly sessionTimeoutMs: number;
  readonly subscribeId: FrameId | undefined;
  readonly delivery: Delivery;
  readonly partitions: Map<string, PartitionDelivery>;
  /** Undefined while joining. */
  member: { readonly memberId: string; readonly membership: number } | undefined;
  /** An unsubscribe that came while joining. */
  leaving: UnsubscribeFrame | undefined;
}

/** Names a subscription for as long as it lives. */
export interface SubscriptionRef {
  readonly name: string;
  readonly serial: number;
}

/** Names one ownership of a partition by a subscription. */
export interface PartitionRef extends SubscriptionRef {
  readonly partitionKey: string;
  readonly generation: number;
}

export interface MembershipRef {
  readonly group: string;
  readonly memberId: string;
  readonly membership: number;
}

export function createSession(options: { durability: Durability; nowMs: number }): Session {
  return {
    durability: options.durability,
    subscriptions: new Map(),
    lastSerial: 0,
    lastSeenAtMs: options.nowMs,
    pingsUnanswered: 0,
    ackEntriesWaiting: 0,
    isHeard: false,
    isClosed: false,
  };
}

export function find(session: Session, { name, serial }: SubscriptionRef): Subscription | undefined {
  const subscription = session.subscriptions.get(name);
  return subscription?.serial === serial ? subscription : undefined;
}

export function findPartition(
  { partitions }: Subscription,
  { partitionKey, generation }: PartitionRef,
): PartitionDelivery | undefined {
  const partition = partitions.get(partitionKey);
  return partition?.generation === generation ? partition : undefined;
}

export function refOf({ name, serial }: Subscription): SubscriptionRef {
  return { name, serial };
}

export function partitionRef(
  subscription: Subscription,
  { topic, partition, generation }: PartitionDelivery,
): PartitionRef {
  return { ...refOf(subscription), partitionKey: partitionKey(topic, partition), generation };
}

export function membershipOf(
  { group }: Subscription,
  member: { memberId: string; membership: number },
): MembershipRef {
  return { group, memberId: member.memberId, membership: member.membership };
}

/** A topic's name has no slash. */
export function partitionKey(topic: string, partition: number): string {
  return `${topic}/${partition}`;
}
