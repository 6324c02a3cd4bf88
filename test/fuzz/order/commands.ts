// What may happen, each with the answer that the model foretells. A command that says a frame can be said alone, and then
// its answer is known, or in a burst with others, and then only that it is answered, and once.

import { expect } from "bun:test";
import type fc from "fast-check";
import type { ErrorCode } from "../../../src/protocol/codes.ts";
import type { AckEntry, ClientFrame, SubscribeFrame } from "../../../src/protocol/frames.ts";
import type { Place } from "../../../src/protocol/places.ts";
import { type Expected, GROUP, type Model, PARTITIONS, SESSION_TIMEOUT_MS, TOPIC } from "./model.ts";
import type { Real } from "./real.ts";
import type { Held, View } from "./view.ts";

export type Command = fc.AsyncCommand<Model, Real>;

/** Which subscription says it, of the sockets and names that there may be. */
export interface Speaker {
  readonly socket: number;
  readonly name: string;
  /** Whether it speaks where there is no such subscription. */
  readonly isLost: boolean;
}

interface Asked {
  readonly frame: ClientFrame;
  readonly expected: Expected;
}

export abstract class FrameCommand implements Command {
  readonly speaker: Speaker;

  constructor(speaker: Speaker) {
    this.speaker = speaker;
  }

  /** The frame, and what it must be answered. */
  abstract ask(model: Model): Asked;
  abstract toString(): string;

  check(model: Readonly<Model>): boolean {
    return this.speaker.isLost || model.view(this.speaker.socket, this.speaker.name) !== undefined;
  }

  async run(model: Model, real: Real): Promise<void> {
    const { frame, expected } = this.ask(model);
    real.say(this.speaker.socket, model.ask(this.speaker.socket, frame, expected));
    await real.settle(model);
  }

  view(model: Model): View | undefined {
    return model.view(this.speaker.socket, this.speaker.name);
  }

  said(what: unknown): string {
    return `${this.speaker.socket}/${this.speaker.name} ${JSON.stringify(what)}`;
  }
}

function refused(code: ErrorCode): Expected {
  return { type: "error", code };
}

const UNKNOWN_SUBSCRIPTION = refused("unknown_subscription");

// ── subscribe, unsubscribe ───────────────────────────────────────────────────────────────────────────────

export interface SubscribeOptions {
  readonly kind: "member" | "instance" | "takeover" | "reader";
  readonly ack: "manual" | "none";
  readonly records: number;
  readonly reset: "earliest" | "latest";
  /** Which instance, or which member is taken over. */
  readonly which: number;
}

export class Subscribe extends FrameCommand {
  readonly options: SubscribeOptions;

  constructor(speaker: Speaker, options: SubscribeOptions) {
    super(speaker);
    this.options = options;
  }

  ask(model: Model): Asked {
    const { kind, ack, records, reset, which } = this.options;
    const frame: SubscribeFrame = {
      type: "subscribe",
      subscription: this.speaker.name,
      topics: [TOPIC],
      ack,
      window: { records },
      ...(kind === "reader"
        ? { from: reset }
        : { group: GROUP, reset, sessionTimeoutMs: SESSION_TIMEOUT_MS }),
      ...(kind === "instance" && { instanceId: `tab-${which % 2}` }),
      ...(kind === "takeover" && { memberId: this.#victimOf(model) }),
    };
    return { frame, expected: this.#expect(model, frame) };
  }

  override check(): boolean {
    return true;
  }

  /** Alone: a takeover gives exactly what was taken over, and moves nobody else. */
  override async run(model: Model, real: Real): Promise<void> {
    const { frame, expected } = this.ask(model);
    const shares = sharesOf(model);
    const victims = frame.type === "subscribe" ? takenOverBy(model, frame) : [];
    const isFirst = !model.isGroupThere && expected.type === "subscribed" && this.options.kind !== "reader";
    const ends = [...model.ends];
    real.say(this.speaker.socket, model.ask(this.speaker.socket, frame, expected));
    await real.settle(model);
    if (isFirst)
      expectPolicy(
        model,
        ends.map((end) => (this.options.reset === "latest" ? end : 0)),
      );
    if (!shares || expected.type === "error" || this.options.kind === "reader") return;
    expectNobodyElseGains(shares, model, this.view(model)?.memberId);
    const [victim, ...others] = victims;
    if (victim?.memberId !== undefined && others.length === 0)
      expect([...(this.view(model)?.held.keys() ?? [])].sort()).toEqual(
        [...(shares.get(victim.memberId) ?? [])].sort(),
      );
  }

  #victimOf({ members }: Model): string {
    return members[this.options.which % members.length]?.memberId ?? "nobody";
  }

  #expect(model: Model, frame: SubscribeFrame): Expected {
    const { socket, name } = this.speaker;
    if (model.view(socket, name)) return refused("conflict");
    const takenOver = takenOverBy(model, frame);
    const own = [...(model.sockets[socket]?.values() ?? [])].filter(({ isReader }) => !isReader);
    if (frame.group !== undefined && own.some((view) => !takenOver.includes(view)))
      return refused("conflict");
    const isThere = frame.memberId !== undefined && model.isMemberThere(frame.memberId);
    return { type: "subscribed", subscription: name, ...(isThere && { memberId: frame.memberId }) };
  }

  override toString(): string {
    return this.said({ subscribe: this.options });
  }
}

function takenOverBy({ members }: Model, { memberId, instanceId }: SubscribeFrame): readonly View[] {
  return members.filter(
    (view) =>
      (memberId !== undefined && view.memberId === memberId) ||
      (instanceId !== undefined && view.instanceId === instanceId),
  );
}

export class Unsubscribe extends FrameCommand {
  ask(model: Model): Asked {
    const { name } = this.speaker;
    const frame: ClientFrame = { type: "unsubscribe", subscription: name };
    return {
      frame,
      expected: this.view(model) ? { type: "unsubscribed", subscription: name } : UNKNOWN_SUBSCRIPTION,
    };
  }

  /** Alone: who stays loses nothing. */
  override async run(model: Model, real: Real): Promise<void> {
    const shares = sharesOf(model);
    const leaving = this.view(model)?.memberId;
    await super.run(model, real);
    if (shares) expectNobodyLoses(shares, model, leaving);
  }

  override toString(): string {
    return this.said("unsubscribe");
  }
}

// ── who has what ─────────────────────────────────────────────────────────────────────────────────────────

type Shares = ReadonlyMap<string, readonly number[]>;

/** By member; undefined where something is on its way, or is held by a member that is away. */
function sharesOf({ members, detached }: Model): Shares | undefined {
  const isMoving = members.some(({ held }) => [...held.values()].some(({ isRevoked }) => isRevoked));
  if (isMoving || detached.length > 0) return undefined;
  return new Map(members.map(({ memberId = "", held }) => [memberId, [...held.keys()]]));
}

function expectNobodyElseGains(before: Shares, { members }: Model, joined: string | undefined): void {
  for (const { memberId = "", held } of members)
    if (memberId !== joined)
      expect(before.get(memberId) ?? []).toEqual(expect.arrayContaining([...held.keys()]));
}

function expectNobodyLoses(before: Shares, { members }: Model, left: string | undefined): void {
  for (const { memberId = "", held } of members)
    if (memberId !== left)
      expect([...held.keys()]).toEqual(expect.arrayContaining([...(before.get(memberId) ?? [])]));
}

function expectPolicy({ committed, members }: Model, offsets: readonly number[]): void {
  // At most once what is there is committed already.
  if (members.some(({ ack }) => ack === "none")) return;
  expect([...committed].sort()).toEqual([...offsets.entries()]);
}

// ── ack, release, pause, resume, seek ────────────────────────────────────────────────────────────────────

const ACKS = ["right", "part", "repeated", "beyond", "old", "stolen", "partition", "topic"] as const;
export const ACK_KINDS: readonly AckKind[] = ACKS;
export type AckKind = (typeof ACKS)[number];

export class Ack extends FrameCommand {
  readonly kind: AckKind;
  readonly partition: number;

  constructor(speaker: Speaker, about: { readonly kind: AckKind; readonly partition: number }) {
    super(speaker);
    this.kind = about.kind;
    this.partition = about.partition;
  }

  ask(model: Model): Asked {
    const view = this.view(model);
    const entry = this.#entry(model, view?.held.get(this.partition));
    const frame: ClientFrame = { type: "ack", subscription: this.speaker.name, offsets: [entry] };
    return { frame, expected: view ? this.#expect(model, view, entry) : UNKNOWN_SUBSCRIPTION };
  }

  #entry(model: Model, held: Held | undefined): AckEntry {
    const { partition } = this;
    const right = { topic: TOPIC, partition, generation: held?.generation ?? 0, offset: held?.next ?? 0 };
    switch (this.kind) {
      case "part":
        return { ...right, offset: held?.unacked[1] ?? right.offset };
      case "repeated":
        return { ...right, offset: Math.min(right.offset, model.committed.get(partition) ?? 0) };
      case "beyond":
        return { ...right, offset: (held?.furthest ?? 0) + 1 };
      case "old":
        return { ...right, generation: Math.max(0, right.generation - 1) };
      case "stolen":
        return { ...right, generation: this.#otherOwner(model)?.generation ?? 0 };
      case "partition":
        return { ...right, partition: PARTITIONS };
      case "topic":
        return { ...right, topic: "nowhere" };
      default:
        return right;
    }
  }

  #otherOwner(model: Model): Held | undefined {
    return model.members
      .find((view) => view !== this.view(model) && view.held.has(this.partition))
      ?.held.get(this.partition);
  }

  #expect(model: Model, view: View, entry: AckEntry): Expected {
    const { topic, partition, generation, offset } = entry;
    const held = topic === TOPIC ? view.held.get(partition) : undefined;
    const isFenced = held?.generation !== generation;
    const code = isFenced ? "fenced_generation" : offset > held.furthest ? "offset_out_of_range" : undefined;
    const answer = (offsetAfter: number | null, why: ErrorCode | undefined): Expected => ({
      type: "acked",
      subscription: view.name,
      offsets: [{ topic, partition, offset: offsetAfter, ...(why && { code: why }) }],
    });
    if (view.isReader) return answer(null, code);
    if (topic !== TOPIC) return answer(null, "unknown_topic");
    if (partition >= PARTITIONS) return answer(null, "unknown_partition");
    const committed = model.committed.get(partition) ?? 0;
    return answer(code ? committed : Math.max(committed, offset), code);
  }

  override toString(): string {
    return this.said({ ack: this.kind, partition: this.partition });
  }
}

export class Steer extends FrameCommand {
  readonly type: "pause" | "resume" | "release";
  readonly partitions: readonly number[];

  constructor(
    speaker: Speaker,
    about: { readonly type: "pause" | "resume" | "release"; readonly partitions: readonly number[] },
  ) {
    super(speaker);
    this.type = about.type;
    this.partitions = about.partitions;
  }

  ask(model: Model): Asked {
    const partitions = this.partitions.map((partition) => ({ topic: TOPIC, partition }));
    return {
      frame: { type: this.type, subscription: this.speaker.name, partitions },
      expected: this.#expect(model),
    };
  }

  #expect(model: Model): Expected {
    const view = this.view(model);
    if (!view) return UNKNOWN_SUBSCRIPTION;
    const held = this.partitions.map((partition) => view.held.get(partition));
    if (held.includes(undefined)) return refused("not_assigned");
    const isKept = this.type === "release" && held.some((each) => !each?.isRevoked);
    return isKept ? refused("conflict") : { type: "ok" };
  }

  override toString(): string {
    return this.said({ [this.type]: this.partitions });
  }
}

export class SeekTo extends FrameCommand {
  readonly partition: number;
  readonly to: Place;

  constructor(speaker: Speaker, about: { readonly partition: number; readonly to: Place }) {
    super(speaker);
    this.partition = about.partition;
    this.to = about.to;
  }

  ask(model: Model): Asked {
    const { partition, to } = this;
    const frame: ClientFrame = { type: "seek", subscription: this.speaker.name, topic: TOPIC, partition, to };
    return { frame, expected: this.#expect(model) };
  }

  #expect(model: Model): Expected {
    const { partition, to } = this;
    const view = this.view(model);
    if (!view) return UNKNOWN_SUBSCRIPTION;
    const held = view.held.get(partition);
    if (!held || held.isRevoked) return refused("not_assigned");
    const end = model.ends[partition] ?? 0;
    const committed = model.committed.get(partition) ?? 0;
    if (view.isReader && (to === "current" || (typeof to === "object" && "shift" in to)))
      return refused("bad_request");
    const position = placeOf(to, { committed, end });
    if (position > end) return refused("offset_out_of_range");
    return {
      type: "assigned",
      subscription: view.name,
      partitions: [{ topic: TOPIC, partition, generation: held.generation, position, logEndOffset: end }],
    };
  }

  override toString(): string {
    return this.said({ seek: this.partition, to: this.to });
  }
}

function placeOf(
  to: Place,
  { committed, end }: { readonly committed: number; readonly end: number },
): number {
  if (to === "earliest") return 0;
  if (to === "latest") return end;
  if (to === "current") return committed;
  if ("offset" in to) return to.offset;
  if ("shift" in to) return Math.min(Math.max(committed + to.shift, 0), end);
  throw new RangeError("no command goes to a time");
}

// ── produce, transact ────────────────────────────────────────────────────────────────────────────────────

export interface ProduceOptions {
  readonly partition: number;
  readonly count: number;
  readonly condition: "none" | "expect" | "unexpected" | "next" | "repeat" | "gap" | "fenced" | "partition";
}

/** Partly by a producer: it writes one sequence after the other, in epoch 1. */
export class Produce extends FrameCommand {
  readonly options: ProduceOptions;

  constructor(speaker: Speaker, options: ProduceOptions) {
    super(speaker);
    this.options = options;
  }

  ask(model: Model): Asked {
    const { partition, count, condition } = this.options;
    const end = model.ends[partition] ?? 0;
    const runs = [{ partition, offset: end, count }];
    const written = { type: "produced", runs } as const;
    const frame = { type: "produce", topic: TOPIC, records: model.records(partition, count) } as const;
    const { length: next } = model.sequences;
    const by = (sequence: number, epoch = 1) => ({ ...frame, producer: { id: "p", epoch, sequence } });
    switch (condition) {
      case "none":
        return { frame, expected: written };
      case "expect":
        return { frame: { ...frame, expect: [{ partition, logEndOffset: end }] }, expected: written };
      case "unexpected":
        return {
          frame: { ...frame, expect: [{ partition, logEndOffset: end + 1 }] },
          expected: refused("conflict"),
        };
      case "partition":
        return {
          frame: { ...frame, records: [{ partition: PARTITIONS, value: 0 }] },
          expected: refused("unknown_partition"),
        };
      case "next":
        return { frame: by(next), expected: written };
      case "gap":
        return { frame: by(next + 1), expected: refused("sequence_gap") };
      case "fenced":
        return { frame: by(next, 0), expected: refused("fenced_producer") };
      case "repeat":
        return { frame: by(next - 1), expected: { type: "produced", runs: runsOf(model), duplicate: true } };
    }
  }

  /** A producer that has written nothing is unknown: any epoch begins at 0. */
  override check({ sequences }: Readonly<Model>): boolean {
    const needsMore = this.options.condition === "repeat" || this.options.condition === "fenced";
    return !needsMore || sequences.length > 0;
  }

  override toString(): string {
    return this.said({ produce: this.options });
  }
}

/** As the last one was answered. */
function runsOf({ sequences }: Model) {
  return sequences.at(-1)?.map(({ partition, offset, count }) => ({ partition, offset, count }));
}

export interface TransactOptions {
  readonly partition: number;
  readonly count: number;
  /** Where it appends to. */
  readonly target: number;
  readonly commit: "right" | "old" | "back" | "beyond";
}

export class Transact extends FrameCommand {
  readonly options: TransactOptions;

  constructor(speaker: Speaker, options: TransactOptions) {
    super(speaker);
    this.options = options;
  }

  ask(model: Model): Asked {
    const { target, count } = this.options;
    const entry = this.#entry(model);
    const appends = [{ topic: TOPIC, records: model.records(target, count) }];
    const frame: ClientFrame = { type: "transact", appends, commits: { group: GROUP, offsets: [entry] } };
    return { frame, expected: this.#expect(model, entry) };
  }

  override check(): boolean {
    return true;
  }

  /** Whoever owns the partition, whichever socket it is. */
  #owner({ members }: Model): Held | undefined {
    return members.find(({ held }) => held.has(this.options.partition))?.held.get(this.options.partition);
  }

  #entry(model: Model): AckEntry {
    const { partition, commit } = this.options;
    const held = this.#owner(model);
    const generation = commit === "old" ? 0 : (held?.generation ?? 0);
    const committed = model.committed.get(partition) ?? 0;
    const offsets = {
      right: held?.next ?? 0,
      old: held?.next ?? 0,
      back: committed,
      beyond: (model.ends[partition] ?? 0) + 1,
    };
    return { topic: TOPIC, partition, generation, offset: offsets[commit] };
  }

  #expect(model: Model, { partition, generation, offset }: AckEntry): Expected {
    const { target, count } = this.options;
    if (this.#owner(model)?.generation !== generation) return refused("fenced_generation");
    if (offset > (model.ends[partition] ?? 0)) return refused("offset_out_of_range");
    if (offset <= (model.committed.get(partition) ?? -1)) return refused("conflict");
    const runs = [{ topic: TOPIC, partition: target, offset: model.ends[target] ?? 0, count }];
    return { type: "transacted", runs };
  }

  override toString(): string {
    return this.said({ transact: this.options });
  }
}

// ── several at once, and what is no frame ────────────────────────────────────────────────────────────────

/** Frames on their way together: each is answered once, and what comes of them is as it must be. */
export class Burst implements Command {
  readonly #commands: readonly FrameCommand[];

  constructor(commands: readonly FrameCommand[]) {
    this.#commands = commands;
  }

  check(model: Readonly<Model>): boolean {
    return this.#commands.every((command) => command.check(model));
  }

  async run(model: Model, real: Real): Promise<void> {
    const asked = this.#commands.map(
      (command) => [command.speaker.socket, command.ask(model).frame] as const,
    );
    for (const [socket, frame] of asked) real.say(socket, model.ask(socket, frame));
    await real.settle(model);
  }

  toString(): string {
    return `at once: ${this.#commands.join("; ")}`;
  }
}

/** The socket is closed, and another one opened. */
export class HangUp implements Command {
  readonly #socket: number;

  constructor(socket: number) {
    this.#socket = socket;
  }

  check(): boolean {
    return true;
  }

  async run(model: Model, real: Real): Promise<void> {
    real.hangUp(this.#socket);
    model.hangUp(this.#socket);
    await real.pass(0);
    await real.connect(this.#socket);
    await real.settle(model);
  }

  toString(): string {
    return `${this.#socket} hangs up`;
  }
}

export class Pass implements Command {
  readonly #ms: number;

  constructor(ms: number) {
    this.#ms = ms;
  }

  check(): boolean {
    return true;
  }

  async run(model: Model, real: Real): Promise<void> {
    await real.pass(this.#ms);
    model.nowMs += this.#ms;
    await real.settle(model);
  }

  toString(): string {
    return `${this.#ms} ms pass`;
  }
}

/** By an operator, over HTTP. */
export class Reset implements Command {
  readonly #to: "earliest" | "latest" | { readonly shift: number };

  constructor(to: "earliest" | "latest" | { readonly shift: number }) {
    this.#to = to;
  }

  check({ isGroupThere }: Readonly<Model>): boolean {
    return isGroupThere;
  }

  async run(model: Model, real: Real): Promise<void> {
    const plan = model.ends.map((end, partition) => {
      const committed = model.committed.get(partition) ?? 0;
      return { topic: TOPIC, partition, from: committed, to: placeOf(this.#to, { committed, end }) };
    });
    const body = { topics: [{ topic: TOPIC }], to: this.#to };
    const answer = await real.call("POST", `/v1/groups/${GROUP}/reset`, body);
    expect(answer).toEqual({ status: 200, body: { plan, applied: true } });
    for (const { partition, to } of plan) model.committed.set(partition, to);
    await real.settle(model);
  }

  toString(): string {
    return `a reset to ${JSON.stringify(this.#to)}`;
  }
}
