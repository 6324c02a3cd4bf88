// Browser-safe. One partition in the hands of one subscription, from when it was gained until it is lost, and what to do
// when the server says something of it. Decisions only: subscription.ts does what they say.
//
// A tenure may outlive its connection: who comes back and finds the committed offset where it left it goes on, in the new
// generation, from the next offset that was not handed out. What the user has in hand is still theirs then, and is not
// handed out twice. Anything else (somebody else's commit, a reset, another topic of that name) ends the tenure.

import type { AssignedPartition, DeliveredRecord, RecordsFrame } from "../../src/protocol/frames.ts";
import type { Place } from "../../src/protocol/places.ts";
import type { TidemarkError } from "./errors.ts";

export interface Tenure {
  /** A reader's: it owns nothing, commits nothing, and its acks only make room. */
  readonly isReader: boolean;
  /** Of the same partition, lost, and still in hand: records of a partition are handed out one after the other. */
  readonly previous: Tenure | undefined;
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  /** Of the connection that there is now: an ack names it. */
  generation: number;
  /** Received, not handed out. */
  queue: RecordsFrame[];
  /** The next offset to be handed out: whatever is below was, and is dropped. */
  handedOut: number;
  /** The same before it was last moved. */
  movedFrom: number;
  /** What the user is done with: the next offset to be committed. */
  processed: number;
  /** The same since the last move, a seek back included: what is sent from there takes up the window. */
  passed: number;
  /** What `passed` was when it was last told, by an ack. */
  freed: number;
  /** The furthest position of this generation: nothing above it may be acknowledged. */
  reached: number;
  /** Durable, as far as is known; null where nothing is committed. */
  committed: number | null;
  /** The highest offset that an ack was sent for, in any generation: it may be durable. */
  asked: number;
  /** The same, in this generation. */
  askedNow: number;
  logEndOffset: number;
  /** Batches that the user has and has not finished. */
  inHand: number;
  /** Where it is to begin, until the server goes on from there: nothing above says where it is before that. */
  start?: Place | undefined;
  /** Seeks without an answer: what is received may be void. */
  seeks: number;
  /** The user wants nothing of it. */
  isPaused?: boolean;
  hasAskedPause?: boolean;
  /** The server was asked to send nothing, because too much waits here. */
  isHeld?: boolean;
  /** The place to go on from was not to be had: until there is another one nothing is handed out, or there would be a gap. */
  isAstray?: boolean;
  isRevoking?: boolean;
  isDetached?: boolean;
  isLost?: boolean;
  /** Kept with the committed offset, by the next ack. */
  metadata: string | undefined;
  deadLetters: DeadLetter[];
  isInTransaction?: boolean;
  readonly waiters: Waiter[];
  /** Who waits until it is known whose it is, after the connection was lost. */
  reattached: (() => void)[];
  /** Aborts when it is lost. */
  readonly ending: AbortController;
}

/** A record that goes to another topic, with the ack of its offset. */
export interface DeadLetter {
  readonly record: DeliveredRecord;
  readonly error: unknown;
}

/** Who wants to know when everything below `offset` is durable. */
export interface Waiter {
  readonly offset: number;
  readonly settle: (error?: TidemarkError) => void;
}

export function createTenure(assigned: AssignedPartition, isReader: boolean, last?: Tenure): Tenure {
  const { topic, topicId, partition } = assigned;
  const tenure: Tenure = {
    previous: isIdle(last) ? undefined : last,
    ...{ isReader, topic, topicId, partition, generation: assigned.generation, queue: [] },
    ...{ movedFrom: 0, handedOut: assigned.position ?? 0, processed: 0, passed: 0, freed: 0, reached: 0 },
    ...{ committed: null, asked: 0, askedNow: 0, logEndOffset: 0, inHand: 0, seeks: 0, metadata: undefined },
    ...{ deadLetters: [], waiters: [], reattached: [], ending: new AbortController() },
  };
  moveTo(tenure, assigned);
  return tenure;
}

/** The server goes on from another place: what was received and not handed out is void. */
export function moveTo(tenure: Tenure, assigned: AssignedPartition): void {
  const position = assigned.position ?? 0; // null: nothing is sent, until another `assigned` says from where
  if (assigned.reset !== undefined) restart(tenure, assigned.committedOffset);
  tenure.generation = assigned.generation;
  tenure.isAstray = false;
  tenure.queue = [];
  tenure.movedFrom = tenure.handedOut;
  tenure.handedOut = tenure.passed = tenure.freed = position;
  tenure.reached = Math.max(tenure.reached, position);
  tenure.logEndOffset = assigned.logEndOffset;
  noteCommitted(tenure, assigned.committedOffset);
  if (tenure.isReader) tenure.processed = tenure.askedNow = position;
}

/** A policy has put the committed offset elsewhere, back too. */
function restart(tenure: Tenure, offset: number | null): void {
  tenure.committed = offset;
  tenure.processed = tenure.asked = tenure.askedNow = tenure.reached = offset ?? 0;
}

/**
 * Whether the partition is still in the same hands after the connection was lost: the committed offset is one that this
 * tenure has seen or asked for.
 */
export function isContinued(tenure: Tenure, assigned: AssignedPartition): boolean {
  const { committed, asked } = tenure;
  const { committedOffset: found } = assigned;
  if (!tenure.isDetached || tenure.topicId !== assigned.topicId) return false;
  if (tenure.isReader) return true;
  if (assigned.reset !== undefined) return false;
  if (found === null || committed === null) return found === committed;
  return found >= committed && found <= Math.max(committed, asked);
}

/** Goes on in a new generation. Returns where to seek, where the server would go on from another place than we do. */
export function resume(tenure: Tenure, assigned: AssignedPartition): Place | undefined {
  tenure.isDetached = false;
  tenure.generation = assigned.generation;
  tellReattached(tenure);
  tenure.logEndOffset = assigned.logEndOffset;
  tenure.reached = assigned.position ?? 0;
  tenure.askedNow = tenure.isReader ? tenure.handedOut : 0;
  tenure.passed = tenure.freed = tenure.handedOut;
  noteCommitted(tenure, assigned.committedOffset);
  return tenure.start ?? (tenure.reached === tenure.handedOut ? undefined : { offset: tenure.handedOut });
}

/** The connection is gone: what was not handed out comes again. */
export function detach(tenure: Tenure, keepsQueue: boolean): void {
  tenure.isDetached = true;
  tenure.isHeld = tenure.isAstray = false;
  if (!keepsQueue) tenure.queue = [];
}

/** Keeps what comes for the user. What is of another generation, or of a partition that is let go, is dropped. */
export function receive(tenure: Tenure, frame: RecordsFrame): void {
  if (frame.generation !== tenure.generation || tenure.isRevoking || tenure.isDetached) return;
  tenure.reached = Math.max(tenure.reached, frame.next);
  tenure.logEndOffset = frame.logEndOffset;
  tenure.queue.push(frame);
}

/** Hands the next records out: none twice. `undefined` where all that waited had been handed out before. */
export function takeFrame(tenure: Tenure): RecordsFrame | undefined {
  for (let frame = tenure.queue.shift(); frame; frame = tenure.queue.shift()) {
    const from = tenure.handedOut;
    if (frame.next <= from) continue;
    tenure.handedOut = frame.next;
    tenure.inHand += 1;
    if ((frame.records[0]?.offset ?? from) >= from) return frame;
    return { ...frame, records: frame.records.filter(({ offset }) => offset >= from) };
  }
  return undefined;
}

/** Whether the user may be given something of it. */
export function isReady(tenure: Tenure): boolean {
  const { queue, inHand, seeks, isPaused, isAstray, previous } = tenure;
  return queue.length > 0 && inHand === 0 && seeks < 1 && !isPaused && !isAstray && isIdle(previous);
}

function isIdle(tenure: Tenure | undefined): boolean {
  return !tenure || (tenure.inHand === 0 && tenure.queue.length === 0 && isIdle(tenure.previous));
}

/** The user is done with everything below `offset`. What was in hand at a seek back says nothing of what follows that. */
export function pass(tenure: Tenure, offset: number): void {
  tenure.processed = Math.max(tenure.processed, offset);
  if (offset <= tenure.handedOut) tenure.passed = Math.max(tenure.passed, offset);
}

/** What may be acknowledged now, and is not yet. What was committed before is too: it makes room in the window. */
export function findAckable(tenure: Tenure): number | undefined {
  if (tenure.isLost || tenure.isDetached || tenure.isInTransaction) return undefined;
  const offset = Math.min(tenure.processed, tenure.reached);
  if (offset > Math.max(tenure.askedNow, tenure.committed ?? 0)) return offset;
  return tenure.passed > tenure.freed ? tenure.passed : undefined;
}

/** Whether a partition that goes to somebody else may go now: nothing is in hand, and all that was done is durable. */
export function isFinished(tenure: Tenure): boolean {
  return tenure.isRevoking === true && (tenure.committed ?? 0) >= tenure.handedOut;
}

/** What is durable goes forward; returns those who waited for it. */
export function noteCommitted(tenure: Tenure, offset: number | null): void {
  if (offset === null) return;
  const committed = Math.max(tenure.committed ?? 0, offset);
  tenure.committed = committed;
  if (!tenure.isReader) tenure.processed = Math.max(tenure.processed, committed);
  tenure.asked = Math.max(tenure.asked, committed);
  for (const { settle } of takeWaiters(tenure, (waiter) => waiter.offset <= committed)) settle();
}

/** Resolves when the tenure has a connection again, or is lost. */
export async function waitReattached(tenure: Tenure): Promise<void> {
  if (tenure.isDetached && !tenure.isLost)
    await new Promise<void>((resolve) => tenure.reattached.push(resolve));
}

export function tellReattached(tenure: Tenure): void {
  for (const tell of tenure.reattached.splice(0)) tell();
}

export function takeWaiters(tenure: Tenure, isTaken: (waiter: Waiter) => boolean): readonly Waiter[] {
  const taken = tenure.waiters.filter(isTaken);
  if (taken.length > 0)
    tenure.waiters.splice(0, Infinity, ...tenure.waiters.filter((each) => !isTaken(each)));
  return taken;
}

/** Of a partition of any tenure. */
export function keyOf({ topic, partition }: { readonly topic: string; readonly partition: number }): string {
  return `${topic}/${partition}`;
}
