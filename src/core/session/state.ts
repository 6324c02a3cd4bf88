// What a session remembers: its subscriptions, their partitions, and when the client was last heard of.

import type { AckMode, Durability, FrameId, UnsubscribeFrame } from "../../protocol/frames.ts";
import type { ResetPolicies } from "../../protocol/places.ts";
import type { ReaderRequest } from "../readers.ts";
import type { TextChunk } from "./events.ts";
import type { Delivery, PartitionDelivery } from "./window.ts";

export interface Session {
  readonly durability: Durability;
  readonly subscriptions: Map<string, Subscription>;
  /** Numbers subscriptions, so that a late result of an earlier one of the same name is known as such. */
  lastSerial: number;
  lastSeenAtMs: number;
  pingsUnanswered: number;
  /** When the alarm that is set goes off; undefined while none is. */
  alarmAtMs: number | undefined;
  /** When the client's silence is looked at next; never before the opening and after the last ping. */
  heartbeatAtMs: number;
  /** What was asked for and not answered yet. */
  readonly waiting: {
    ackEntries: number;
    commitsAhead: number;
    seeks: number;
    transactions: number;
    leaves: number;
  };
  /** The client was heard of since its leases were renewed. */
  isHeard: boolean;
  /** The server is about to close the socket: nothing new begins. */
  isDraining: boolean;
  /** The socket is gone; joins that are still on their way are let go when they arrive. */
  isClosed: boolean;
}

export interface Subscription {
  readonly name: string;
  readonly serial: number;
  readonly subscribeId: FrameId | undefined;
  readonly topics: readonly string[];
  readonly source: GroupSource | ReaderSource;
  readonly policies: ResetPolicies;
  readonly ack: AckMode;
  readonly ackTimeoutMs: number | undefined;
  readonly sessionTimeoutMs: number;
  readonly delivery: Delivery;
  readonly partitions: Map<string, PartitionDelivery>;
  /** Those of a group that are to go, from the first word of it until they are lost. */
  readonly revoking: Set<PartitionDelivery>;
  /** `subscribed` was sent. */
  isOpen: boolean;
  /** An unsubscribe that came before that, or before what is committed ahead could be sent. */
  leaving: UnsubscribeFrame | undefined;
  /** At most once: the read whose end is being committed, and its chunk from then on until it is sent. */
  ahead: { readonly ref: PartitionRef; readonly committed: TextChunk | undefined } | undefined;
  /** Of a reader: a topic of it has grown or come into being before that. */
  isStale: boolean;
  /** Of a reader: gains that are under way. */
  gains: number;
  /** Of a reader: partitions of deleted topics that what is under way may still bring. */
  readonly gonePartitionIds: Set<number>;
}

export interface GroupSource {
  readonly kind: "group";
  readonly group: string;
  /** The membership outlives the socket where it has one. */
  readonly instanceId: string | undefined;
  /** Undefined while joining. */
  member: MembershipRef | undefined;
}

/** Without a group: nothing is owned, nothing is committed. */
export interface ReaderSource {
  readonly kind: "reader";
  readonly from: ReaderRequest["from"];
  /** Counts the partitions that it got, so that an `ack` for one that is gone frees nothing of another. */
  lastGeneration: number;
}

/** Names a subscription for as long as it lives. */
export interface SubscriptionRef {
  readonly name: string;
  readonly serial: number;
}

/** Names one `assigned` of a partition by a subscription. */
export interface PartitionRef extends SubscriptionRef {
  readonly partitionKey: string;
  readonly generation: number;
  readonly run: number;
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
    alarmAtMs: undefined,
    heartbeatAtMs: Number.POSITIVE_INFINITY,
    waiting: { ackEntries: 0, commitsAhead: 0, seeks: 0, transactions: 0, leaves: 0 },
    isHeard: false,
    isDraining: false,
    isClosed: false,
  };
}

export function find(session: Session, { name, serial }: SubscriptionRef): Subscription | undefined {
  const subscription = session.subscriptions.get(name);
  return subscription?.serial === serial ? subscription : undefined;
}

/** Undefined where the client has no subscription of that name, or is already leaving it. */
export function findOpen(session: Session, name: string): Subscription | undefined {
  const subscription = session.subscriptions.get(name);
  return subscription?.isOpen && !subscription.leaving ? subscription : undefined;
}

export function findPartition(
  { partitions }: Subscription,
  { partitionKey, generation, run }: PartitionRef,
): PartitionDelivery | undefined {
  const partition = partitions.get(partitionKey);
  return partition?.generation === generation && partition.run === run ? partition : undefined;
}

export function refOf({ name, serial }: SubscriptionRef): SubscriptionRef {
  return { name, serial };
}

export function partitionRef(
  subscription: Subscription,
  { topic, partition, generation, run }: PartitionDelivery,
): PartitionRef {
  return { ...refOf(subscription), partitionKey: partitionKey(topic, partition), generation, run };
}

export function memberOf({ source }: Subscription): MembershipRef | undefined {
  return source.kind === "group" ? source.member : undefined;
}

export function groupOf({ source }: Subscription): string | undefined {
  return source.kind === "group" ? source.group : undefined;
}

/** A topic's name has no slash. */
export function partitionKey(topic: string, partition: number): string {
  return `${topic}/${partition}`;
}
