// A session driven by hand: a test says what happens to it and reads what it wants done, line by line.

import type { CheckedFrame } from "../../src/core/client-frame.ts";
import type { OwnedPartition } from "../../src/core/group-change.ts";
import type { GainedPartition, OwnershipChange } from "../../src/core/ownership.ts";
import type { ReaderPartition } from "../../src/core/readers.ts";
import type {
  AckOutcome,
  JoinResult,
  LocatedFacts,
  SessionEffect,
  SessionEvent,
} from "../../src/core/session/events.ts";
import { createSession, type Session, type SubscriptionRef } from "../../src/core/session/state.ts";
import { stepSession } from "../../src/core/session/step.ts";
import type { ChunkExtent, ReadRequest } from "../../src/core/session/window.ts";
import type { UnplacedPartition } from "../../src/core/starts.ts";
import type { AckEntry, SeekFrame, ServerFrame, SubscribeFrame } from "../../src/protocol/frames.ts";

export type EffectOf<T extends SessionEffect["type"]> = Extract<SessionEffect, { type: T }>;
type Effects = readonly SessionEffect[];

export class SessionScript {
  readonly session: Session = createSession({ durability: "fsync", nowMs: 0 });
  nowMs = 0;
  /** What the socket holds. */
  bufferedBytes = 0;

  step(event: SessionEvent): Effects {
    return stepSession(this.session, event, { nowMs: this.nowMs, bufferedBytes: this.bufferedBytes });
  }

  at(nowMs: number): this {
    this.nowMs = nowMs;
    return this;
  }

  receive(frame: CheckedFrame): Effects {
    return this.step({ type: "frame", frame });
  }

  /** A subscribe frame to "orders" of the group "billing"; the join is still on its way. */
  subscribe(options: Partial<SubscribeFrame> = {}): SubscriptionRef {
    const frame: SubscribeFrame = { type: "subscribe", topics: ["orders"], group: "billing", ...options };
    return theOne(this.receive(frame), "join").ref;
  }

  join(ref: SubscriptionRef, options: JoinOptions = {}): Effects {
    return this.step({ type: "joined", ref, result: joinResult(options) });
  }

  /** Subscribes and joins with these partitions. */
  open(options: Partial<SubscribeFrame> = {}, partitions: readonly GainedPartition[] = [joinedPartition()]) {
    const ref = this.subscribe(options);
    return { ref, effects: this.join(ref, { partitions }) };
  }

  /** A rebalance or a reset, as far as it is said. */
  own(ref: SubscriptionRef, change: Partial<OwnershipChange>): Effects {
    return this.step({ type: "ownership", ref, change: { ...NO_CHANGE, ...change } });
  }

  /** A reader of "orders" with these partitions. */
  read(options: Partial<SubscribeFrame> = {}, partitions: readonly ReaderPartition[] = [readerPartition()]) {
    const frame: SubscribeFrame = { type: "subscribe", topics: ["orders"], from: "earliest", ...options };
    const { ref } = theOne(this.receive(frame), "openReader");
    return { ref, effects: this.step({ type: "readerOpened", ref, partitions }) };
  }

  /** What a read brought: `count` records, or what else is said. */
  answer(read: EffectOf<"read">, extent: Partial<ChunkExtent> & { readonly logEndOffset: number }): Effects {
    return this.step({ type: "chunk", ref: read.ref, chunk: chunkOf(read.request, extent) });
  }

  ack(offsets: readonly AckEntry[], about: { id?: number; subscription?: string } = {}): Effects {
    return this.receive({ type: "ack", offsets, ...about });
  }

  /** The database accepts what the session did not refuse. */
  commit(commit: EffectOf<"commit">, outcomes: readonly AckOutcome[] = acceptedOutcomes(commit)): Effects {
    const { ref, id, acks } = commit;
    return this.step({ type: "committed", ref, id, acks, outcomes });
  }

  /** What was found for a seek: the log holds [0, 1000000) and nothing is committed, or what else is said. */
  locate({ seek }: EffectOf<"locate">, found: Partial<LocatedFacts> = {}): Effects {
    return this.step({ type: "located", seek, outcome: { ...NOTHING_COMMITTED, ...found } });
  }

  /** A seek and what was found for it, one after the other. */
  seekAndLocate(frame: Omit<SeekFrame, "type">, found: Partial<LocatedFacts> = {}): Effects {
    return this.locate(theOne(this.receive({ type: "seek", ...frame }), "locate"), found);
  }

  /** An ack and its commit, one after the other. */
  ackAndCommit(offsets: readonly AckEntry[], about: { id?: number; subscription?: string } = {}): Effects {
    return this.commit(theOne(this.ack(offsets, about), "commit"));
  }
}

const NO_CHANGE: OwnershipChange = { gained: [], revoked: [], lost: [] };
const NOTHING_COMMITTED: LocatedFacts = {
  logStartOffset: 0,
  logEndOffset: 1_000_000,
  committedOffset: null,
  metadata: null,
};

export function acceptedOutcomes({ acks }: EffectOf<"commit">): readonly AckOutcome[] {
  return acks.map(({ offset, refusal }) => ({ committedOffset: refusal ? null : offset, code: refusal }));
}

/** As it comes by a join, or later. */
/** What the driver says when it is done. */
export function transacted(
  { id, answer, transaction }: EffectOf<"transact">,
  outcome: Extract<SessionEvent, { type: "transacted" }>["outcome"],
): SessionEvent {
  return { type: "transacted", id, answer, commits: transaction.commits, outcome };
}

export function joinedPartition(options: Partial<GainedPartition> = {}): GainedPartition {
  const { partition = 0 } = options;
  return {
    topic: "orders",
    topicId: 7,
    partition,
    partitionId: 70 + partition,
    generation: 3,
    committedOffset: 0,
    metadata: null,
    logStartOffset: 0,
    logEndOffset: 1_000_000,
    reset: null,
    unplaced: null,
    ...options,
  };
}

/** The policy `none` leaves it without a place. */
export function unplacedPartition(
  options: Partial<GainedPartition> = {},
  why: Pick<UnplacedPartition, "code" | "message"> = {
    code: "no_committed_offset",
    message: "nothing is committed",
  },
): GainedPartition {
  const gained = joinedPartition({ committedOffset: null, ...options });
  const { partitionId, topic, partition } = gained;
  return { ...gained, unplaced: { partitionId, topic, partition, ...why } };
}

export function readerPartition(options: Partial<ReaderPartition> = {}): ReaderPartition {
  const { partition = 0 } = options;
  return {
    topic: "orders",
    topicId: 7,
    partition,
    partitionId: 70 + partition,
    position: 0,
    logStartOffset: 0,
    logEndOffset: 1_000_000,
    ...options,
  };
}

export type JoinOptions = Partial<JoinResult> & { readonly partitions?: readonly GainedPartition[] };

export function joinResult({ partitions = [joinedPartition()], ...options }: JoinOptions = {}): JoinResult {
  return { memberId: "m1", membership: 1, owned: { ...NO_CHANGE, gained: partitions }, ...options };
}

/** Records of the stated size, whatever their text. */
export function chunkOf(
  { from }: ReadRequest,
  extent: Partial<ChunkExtent> & { readonly logEndOffset: number },
): ChunkExtent & { readonly records: string } {
  const { count = 0 } = extent;
  const records = Array.from({ length: count }, (_, index) => recordText(from + index));
  return {
    count,
    bytes: count * 100,
    next: from + count,
    logStartOffset: 0,
    ...extent,
    records: records.join(","),
  };
}

function recordText(offset: number): string {
  return `{"offset":${offset},"timestamp":0,"value":null}`;
}

// ── reading effects ──────────────────────────────────────────────────────────────────────────────────────

/** The effects as lines of a transcript: enough to see what is done to whom, in order. */
export function lines(effects: Effects): readonly string[] {
  return effects.map(lineOf);
}

function lineOf(effect: SessionEffect): string {
  switch (effect.type) {
    case "send":
      return sentLine(effect.frame);
    case "sendText":
      return sentLine(JSON.parse(effect.text));
    case "ping":
      return "ping";
    case "join":
      return `join ${effect.request.group} for ${refText(effect.ref)}`;
    case "leave":
    case "detach":
    case "renew":
      return `${effect.type} ${effect.member.group} ${effect.member.memberId}`;
    case "read":
      return `read ${effect.ref.partitionKey} from ${effect.request.from}`;
    case "wait":
      return `wait ${effect.ref.partitionKey} at ${effect.position}`;
    case "openReader":
      return `open reader for ${refText(effect.ref)}`;
    case "release":
    case "stall":
      return `${effect.type} ${effect.partitions.map(ownedText).join(", ")} of ${effect.member.memberId}`;
    case "gainReader":
      return `gain for ${refText(effect.ref)}`;
    case "stopWaiting":
      return `stop waiting ${effect.partitionKey ?? refText(effect.ref)}`;
    case "commitAhead":
      return `commit ahead ${effect.group} ${ackText(effect.ack)}`;
    case "reposition":
      return `reposition ${effect.ref.partitionKey}`;
    case "locate":
      return `locate ${effect.seek.topic}/${effect.seek.partition}`;
    case "transact":
      return `write ${effect.transaction.appends.map(({ topic, records }) => `${records.length} to ${topic}`).join(", ")}`;
    case "commit":
      return `commit ${effect.group} ${effect.acks.map(ackText).join(", ")}`;
    case "setAlarm":
      return `alarm in ${effect.delayMs}`;
    case "close":
      return `close ${effect.code}`;
  }
}

function sentLine(frame: ServerFrame): string {
  switch (frame.type) {
    case "records":
      return `send records ${frame.topic}/${frame.partition} to ${frame.next}`;
    case "error":
    case "unsubscribed":
      return `send ${frame.type}${frame.code ? ` ${frame.code}` : ""}`;
    default:
      return `send ${frame.type}`;
  }
}

function refText({ name, serial }: SubscriptionRef): string {
  return `${name}#${serial}`;
}

function ownedText({ partitionId, generation }: OwnedPartition): string {
  return `${partitionId} in ${generation}`;
}

function ackText({ topic, partition, offset, refusal }: EffectOf<"commit">["acks"][number]): string {
  return `${topic}/${partition}=${offset}${refusal ? ` (${refusal})` : ""}`;
}

/** What crosses the wire, as the client parses it: members that are undefined are not there. */
export function framesOf(effects: Effects): readonly ServerFrame[] {
  return effects.flatMap((effect) => {
    if (effect.type === "send") return [JSON.parse(JSON.stringify(effect.frame))];
    return effect.type === "sendText" ? [JSON.parse(effect.text)] : [];
  });
}

export function all<T extends SessionEffect["type"]>(effects: Effects, type: T): readonly EffectOf<T>[] {
  return effects.filter((effect): effect is EffectOf<T> => effect.type === type);
}

/** Throws unless there is exactly one of the type. */
export function theOne<T extends SessionEffect["type"]>(effects: Effects, type: T): EffectOf<T> {
  const [first, ...others] = all(effects, type);
  if (!first || others.length > 0)
    throw new Error(`expected one ${type}, found ${lines(effects).join("; ") || "nothing"}`);
  return first;
}

// ── a log to read from ───────────────────────────────────────────────────────────────────────────────────

/** A partition's records by their sizes; it reads as store/records.ts does. */
export function readSizes(sizes: readonly number[], request: ReadRequest): ChunkExtent {
  const { from, recordsMax, bytesMax, loneRecordBytesMax } = request;
  const nothing = { count: 0, bytes: 0, next: from, logStartOffset: 0, logEndOffset: sizes.length };
  const [first] = sizes.slice(from, from + 1);
  if (first === undefined) return nothing;
  if (first > bytesMax && first > loneRecordBytesMax) return { ...nothing, firstRecordBytes: first };
  let count = 1;
  let bytes = first;
  for (const size of sizes.slice(from + 1, from + recordsMax)) {
    if (bytes + size > bytesMax) break;
    count += 1;
    bytes += size;
  }
  return { ...nothing, count, bytes, next: from + count };
}
