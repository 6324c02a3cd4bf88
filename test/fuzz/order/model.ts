// One topic, one group and some sockets, as the contract says that they behave. Frames go in as they come, each is held
// against what may come; what a frame must be answered with is foretold by commands.ts.

import { expect } from "bun:test";
import type {
  AckEntry,
  ClientFrame,
  ProducedRecord,
  Run,
  ServerFrame,
  SubscribeFrame,
  TopicRun,
} from "../../../src/protocol/frames.ts";
import type { FrameOf } from "../../support/instances.ts";
import { View } from "./view.ts";

export const TOPIC = "orders";
export const GROUP = "billing";
export const PARTITIONS = 3;
export const SOCKETS = 3;
export const SESSION_TIMEOUT_MS = 6_000;

/** How often each kind of thing has come, over all runs: what never comes is not tested. */
export const tally = new Map<string, number>();

function count(what: string): void {
  tally.set(what, (tally.get(what) ?? 0) + 1);
}

/** What an answer must be, as far as it is foretold. */
export type Expected = { readonly type: ServerFrame["type"] } & Readonly<Record<string, unknown>>;

interface Pending {
  readonly socket: number;
  readonly frame: ClientFrame;
  /** Undefined where several frames are on their way: then only that it is answered. */
  readonly expected: Expected | undefined;
  /** Of an unsubscribe: what it ends, where that is there already. */
  readonly leaving: View | undefined;
}

/** A member whose socket is closed, and that may come back. */
export interface Detached {
  readonly memberId: string;
  readonly instanceId: string;
  readonly sinceMs: number;
}

export class Model {
  /** The values of each partition, by offset. */
  readonly #logs: readonly unknown[][] = Array.from({ length: PARTITIONS }, () => []);
  /** What has come to anybody, to be compared when all is answered: records may be there before the answer. */
  readonly #delivered: { readonly partition: number; readonly offset: number; readonly value: unknown }[] =
    [];
  readonly committed = new Map<number, number>();
  readonly sockets: readonly Map<string, View>[] = Array.from({ length: SOCKETS }, () => new Map());
  detached: readonly Detached[] = [];
  /** What each sequence of the one producer was answered with. */
  readonly sequences: (readonly TopicRun[])[] = [];
  nowMs = 0;
  readonly #pending = new Map<number, Pending>();
  readonly #generations = new Set<string>();
  #lastId = 0;
  #lastValue = 0;

  // ── what is asked ────────────────────────────────────────────────────────────────────────────────────

  /** The frame as it is sent. */
  ask(socket: number, frame: ClientFrame, expected?: Expected): ClientFrame {
    this.#lastId += 1;
    const asked = { ...frame, id: this.#lastId };
    const leaving = frame.type === "unsubscribe" ? this.view(socket, frame.subscription ?? "") : undefined;
    this.#pending.set(this.#lastId, { socket, frame: asked, expected, leaving });
    return asked;
  }

  /** Every frame is answered, and what was delivered is what was produced. */
  expectSettled(): void {
    expect([...this.#pending.values()]).toEqual([]);
    const delivered = this.#delivered.splice(0);
    const produced = delivered.map(({ partition, offset }) => this.#logs[partition]?.[offset]);
    expect(delivered.map(({ value }) => value)).toEqual(produced);
  }

  /** None has the value of another. */
  records(partition: number, count: number): readonly ProducedRecord[] {
    return Array.from({ length: count }, () => {
      this.#lastValue += 1;
      return { partition, value: this.#lastValue };
    });
  }

  // ── what there is ────────────────────────────────────────────────────────────────────────────────────

  get ends(): readonly number[] {
    return this.#logs.map(({ length }) => length);
  }

  view(socket: number, name: string): View | undefined {
    return this.sockets[socket]?.get(name);
  }

  get members(): readonly View[] {
    return this.sockets.flatMap((views) => [...views.values()].filter(({ isReader }) => !isReader));
  }

  isMemberThere(memberId: string): boolean {
    return [...this.members, ...this.detached].some((member) => member.memberId === memberId);
  }

  get isGroupThere(): boolean {
    return this.committed.size > 0;
  }

  hangUp(socket: number): void {
    const views = this.sockets[socket];
    for (const { memberId, instanceId } of views?.values() ?? [])
      if (memberId !== undefined && instanceId !== undefined)
        this.detached = [...this.detached, { memberId, instanceId, sinceMs: this.nowMs }];
    views?.clear();
    for (const [id, pending] of this.#pending) if (pending.socket === socket) this.#pending.delete(id);
  }

  // ── what comes ───────────────────────────────────────────────────────────────────────────────────────

  receive(socket: number, frame: ServerFrame): void {
    if ("id" in frame && frame.id !== undefined) this.#takeAnswer(socket, frame);
    else if (frame.type === "error") throw new Error(`nobody asked for ${JSON.stringify(frame)}`);
    count(kindOf(frame));
    this.#take(socket, frame);
  }

  #takeAnswer(socket: number, frame: ServerFrame & { readonly id?: string | number | undefined }): void {
    const asked = this.#pending.get(Number(frame.id));
    if (asked?.socket !== socket)
      throw new Error(`nobody asked for ${JSON.stringify(frame)}, or it is answered`);
    this.#pending.delete(Number(frame.id));
    if (asked.expected) expect(frame as object).toMatchObject(asked.expected);
    if (frame.type === "error") return;
    // Who comes back under the name at once may be told so before.
    if (asked.leaving && this.view(socket, asked.leaving.name) !== asked.leaving) return;
    if (frame.type === "unsubscribed") this.sockets[socket]?.delete(frame.subscription);
    this.#apply(socket, asked.frame, frame);
  }

  /** What the answer does. */
  #apply(socket: number, asked: ClientFrame, answer: ServerFrame): void {
    const views = this.sockets[socket];
    switch (asked.type) {
      case "subscribe":
        if (answer.type !== "subscribed") throw new Error(`subscribe is answered with ${answer.type}`);
        return this.#open(socket, asked, answer);
      case "ack":
        if (answer.type === "acked")
          this.#acknowledge(views?.get(answer.subscription), asked.offsets, answer);
        return;
      case "pause":
      case "resume":
        for (const { partition } of asked.partitions) {
          const held = views?.get(asked.subscription ?? "")?.held.get(partition);
          if (held) held.isPaused = asked.type === "pause";
        }
        return;
      case "release":
        for (const { partition } of asked.partitions) {
          const held = views?.get(asked.subscription ?? "")?.held.get(partition);
          if (held) held.unacked = [];
        }
        return;
      case "produce":
      case "transact":
        return this.#write(socket, asked, answer);
      default:
        return;
    }
  }

  #open(socket: number, asked: SubscribeFrame, answer: FrameOf<"subscribed">): void {
    const view = new View(asked, answer);
    const before = this.view(socket, view.name);
    if (before) expect([...this.#pending.values()].map(({ leaving }) => leaving)).toContain(before);
    this.sockets[socket]?.set(view.name, view);
    this.detached = this.detached.filter(
      ({ memberId, instanceId }) => memberId !== asked.memberId && instanceId !== asked.instanceId,
    );
  }

  #acknowledge(view: View | undefined, entries: readonly AckEntry[], { offsets }: FrameOf<"acked">): void {
    expect(offsets).toHaveLength(entries.length); // no command names a partition twice
    for (const [index, entry] of entries.entries()) {
      const answered = offsets[index];
      if (answered?.code !== undefined) continue;
      view?.free(entry);
      if (view?.isReader) continue;
      // What another socket has committed at the same time may be told later.
      expect(answered?.offset).toBeGreaterThanOrEqual(
        Math.max(entry.offset, this.committed.get(entry.partition) ?? 0),
      );
      this.#commit({ ...entry, offset: answered?.offset ?? 0 });
    }
  }

  #commit({ partition, offset }: Pick<AckEntry, "partition" | "offset">): void {
    this.committed.set(partition, Math.max(offset, this.committed.get(partition) ?? 0));
  }

  #write(socket: number, asked: ClientFrame, answer: ServerFrame): void {
    if (answer.type !== "produced" && answer.type !== "transacted")
      throw new Error(`a write is answered ${answer.type}`);
    if (answer.duplicate) return;
    this.#append(recordsOf(asked), answer.runs);
    if (asked.type === "produce" && asked.producer)
      this.sequences.push(answer.runs.map((run) => ({ topic: TOPIC, ...run })));
    if (asked.type !== "transact") return;
    for (const entry of asked.commits?.offsets ?? []) {
      this.#commit(entry);
      for (const view of this.sockets[socket]?.values() ?? []) if (!view.isReader) view.free(entry);
    }
  }

  #append(records: readonly ProducedRecord[], runs: readonly Run[]): void {
    for (const { partition, offset, count } of runs) {
      expect(offset).toBe(this.ends[partition] ?? -1);
      const written = records.filter((record) => record.partition === partition).map(({ value }) => value);
      expect(written).toHaveLength(count); // no command writes several runs of one partition
      this.#logs[partition]?.push(...written);
    }
  }

  #take(socket: number, frame: ServerFrame): void {
    const views = this.sockets[socket];
    if (!("subscription" in frame) || frame.type === "error" || !views) return;
    const view = views.get(frame.subscription);
    if (!view) {
      // Its own end is answered when it is not there any more; anything else is of nobody.
      if (frame.type === "unsubscribed" || frame.type === "acked") return;
      throw new Error(`there is no subscription for ${JSON.stringify(frame)}`);
    }
    if (frame.type === "assigned") for (const each of frame.partitions) this.#takeAssigned(view, each);
    if (frame.type === "records") this.#takeRecords(view, frame);
    if (frame.type === "revoked") view.takeRevoked(frame);
    if (frame.type === "unsubscribed" && frame.id === undefined) views.delete(view.name);
  }

  #takeAssigned(view: View, partition: FrameOf<"assigned">["partitions"][number]): void {
    const isNew = view.takeAssigned(partition);
    if (!isNew || view.isReader) return;
    const committed = this.committed.get(partition.partition) ?? partition.committedOffset ?? -1;
    this.committed.set(partition.partition, committed);
    const { committedOffset, position } = partition;
    expect({ committedOffset, position }).toEqual({ committedOffset: committed, position: committed });
    const generation = `${partition.partition}/${partition.generation}`;
    expect(this.#generations.has(generation)).toBe(false);
    this.#generations.add(generation);
  }

  /** At most once: what comes is committed. */
  #takeRecords(view: View, frame: FrameOf<"records">): void {
    view.takeRecords(frame);
    const { partition } = frame;
    this.#delivered.push(...frame.records.map(({ offset, value }) => ({ partition, offset, value })));
    if (view.ack === "none" && !view.isReader)
      this.#commit({ partition: frame.partition, offset: frame.next });
  }
}

function recordsOf(asked: ClientFrame): readonly ProducedRecord[] {
  if (asked.type === "produce") return asked.records;
  return asked.type === "transact" ? asked.appends.flatMap(({ records }) => records) : [];
}

function kindOf(frame: ServerFrame): string {
  switch (frame.type) {
    case "error":
    case "unsubscribed":
      return `${frame.type} ${frame.code ?? ""}`.trimEnd();
    case "acked":
      return `acked ${frame.offsets[0]?.code ?? ""}`.trimEnd();
    case "assigned":
      return frame.id === undefined ? "assigned" : "assigned by seek";
    case "produced":
      return frame.duplicate ? "produced before" : "produced";
    case "revoked":
      return `revoked ${frame.deadlineMs > 0 ? "soon" : "at once"}`;
    default:
      return frame.type;
  }
}
