// What a client knows of one subscription, by the frames that it got and nothing else; and what it may get next.

import { expect } from "bun:test";
import type { AckEntry, AckMode, AssignedPartition, SubscribeFrame } from "../../../src/protocol/frames.ts";
import type { FrameOf } from "../../support/instances.ts";

export const WINDOW_DEFAULT = 1_000;

export interface Held {
  readonly generation: number;
  /** The next offset that must come. */
  next: number;
  /** The highest place of this ownership: nothing above it may be acknowledged. */
  furthest: number;
  /** Offsets that have come and are not acknowledged. */
  unacked: readonly number[];
  isPaused: boolean;
  /** It goes: acks count, and nothing comes any more. */
  isRevoked: boolean;
}

export class View {
  readonly name: string;
  readonly isReader: boolean;
  readonly ack: AckMode;
  readonly windowRecords: number;
  readonly memberId: string | undefined;
  readonly instanceId: string | undefined;
  readonly held = new Map<number, Held>();

  constructor(frame: SubscribeFrame, { subscription, memberId }: FrameOf<"subscribed">) {
    this.name = subscription;
    this.isReader = frame.group === undefined;
    this.ack = frame.ack ?? (this.isReader ? "none" : "manual");
    this.windowRecords = frame.window?.records ?? WINDOW_DEFAULT;
    this.memberId = memberId;
    this.instanceId = frame.instanceId;
    expect(memberId === undefined).toBe(this.isReader);
  }

  get unacked(): number {
    return unackedOf([...this.held.values()]);
  }

  /** Whether it began a new ownership. */
  takeAssigned({ partition, generation, position }: AssignedPartition): boolean {
    const before = this.held.get(partition);
    const isSame = before?.generation === generation;
    if (before) expect(generation).toBeGreaterThanOrEqual(before.generation);
    if (isSame) expect(before.isRevoked).toBe(false);
    const next = position ?? Number.NaN; // no policy here leaves a partition without a place
    expect(next).not.toBeNaN();
    this.held.set(partition, {
      generation,
      next,
      furthest: Math.max(isSame ? before.furthest : 0, next),
      unacked: [],
      isPaused: before !== undefined && !before.isRevoked && before.isPaused,
      isRevoked: false,
    });
    return !isSame;
  }

  takeRecords({ partition, generation, records, next }: FrameOf<"records">): void {
    const held = this.held.get(partition);
    if (!held) throw new Error(`records of partition ${partition}, which it does not have`);
    const { isRevoked, isPaused } = held;
    // What is committed before it is sent is sent though the partition is paused by now.
    expect({ generation, isRevoked, isPaused: isPaused && !this.#isAhead }).toEqual({
      generation: held.generation,
      isRevoked: false,
      isPaused: false,
    });
    expect(records.map(({ offset }) => offset)).toEqual(records.map((_, index) => held.next + index));
    expect(next).toBe(held.next + records.length);
    held.next = next;
    held.furthest = Math.max(held.furthest, next);
    if (this.ack === "none") return;
    held.unacked = [...held.unacked, ...records.map(({ offset }) => offset)];
    // What was revoked may be gone by now, without a word: then it counts no more. See expectCaughtUp().
    const staying = [...this.held.values()].filter((each) => !each.isRevoked);
    expect(unackedOf(staying)).toBeLessThanOrEqual(this.windowRecords);
  }

  takeRevoked({ partitions, deadlineMs }: FrameOf<"revoked">): void {
    for (const { partition, generation } of partitions) {
      const held = this.held.get(partition);
      expect(held).toMatchObject({ generation, isRevoked: false });
      if (held && deadlineMs > 0) held.isRevoked = true;
      else this.held.delete(partition);
    }
  }

  free({ partition, generation, offset }: Pick<AckEntry, "partition" | "generation" | "offset">): void {
    const held = this.held.get(partition);
    if (held?.generation === generation) held.unacked = held.unacked.filter((each) => each >= offset);
  }

  /** Nothing more can come without an ack or a record. Of what is gone nothing is held any more. */
  expectCaughtUp(ends: readonly number[]): void {
    expect(this.unacked).toBeLessThanOrEqual(this.windowRecords);
    if (this.unacked >= this.windowRecords) return;
    for (const [partition, { next, isPaused, isRevoked }] of this.held)
      if (!isPaused && !isRevoked)
        expect([this.name, partition, next]).toEqual([this.name, partition, ends[partition] ?? 0]);
  }

  get #isAhead(): boolean {
    return this.ack === "none" && !this.isReader;
  }
}

function unackedOf(held: readonly Held[]): number {
  return held.reduce((sum, { unacked }) => sum + unacked.length, 0);
}
