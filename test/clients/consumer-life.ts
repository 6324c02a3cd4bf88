// One consumer or reader of the model, and what is seen of it from outside: what it was told, what it handed out, what was
// done with it, what it acknowledged. Whatever it must not do throws, when it does it.

import type { Batch, PlacedRecord } from "../../clients/typescript/batch.ts";
import type { Client } from "../../clients/typescript/client.ts";
import type { ConsumeOptions } from "../../clients/typescript/consumer.ts";
import { FencedError, TidemarkError } from "../../clients/typescript/errors.ts";
import type { AckEntry, AssignedPartition, ClientFrame, ServerFrame } from "../../src/protocol/frames.ts";
import { TOPIC } from "./consumer-group.ts";
import type { ConsumerWorld } from "./consumer-world.ts";

export type Kind = "batches" | "records" | "run" | "paced" | "manual" | "none" | "none run" | "reader";

type AnyConsumer = ReturnType<Client["consume"]>;
type AnyReader = ReturnType<Client["read"]>;

/** A partition from when it was gained until it was lost, as its batches' signal tells. */
interface SeenTenure {
  batch: Batch;
  /** What comes next is not below. */
  next: number;
  /** What was committed when it began, and what was acknowledged since. */
  base: number;
  asked: number;
  readonly done: Set<number>;
}

interface Told {
  readonly generation: number;
  readonly topicId: number;
  /** Where it started: below, nothing is this consumer's. */
  readonly base: number;
  /** The same, or where it was sought. */
  position: number;
}

export class ConsumerLife {
  readonly kind: Kind;
  readonly consumer: AnyConsumer | AnyReader;
  readonly #world: ConsumerWorld;
  readonly #tenures = new Map<AbortSignal, SeenTenure>();
  readonly #latest = new Map<number, SeenTenure>();
  readonly #told = new Map<number, Told>();
  /** Passed over by a seek of the user's. */
  readonly #excused: { readonly partition: number; readonly from: number; readonly next: number }[] = [];
  readonly #userSeeks = new Set<unknown>();
  readonly #busy = new Set<number>();
  /** Of `records()`, which does not say whose they are. */
  readonly #doneRecords = new Set<string>();
  readonly #handedOutOnce = new Map<string, number>();
  /** Acks, seeks, pauses without an outcome. */
  open = 0;
  isOver = false;
  failure: unknown;
  #gates: (() => void)[] = [];
  /** All is done at once. */
  isAuto = false;

  constructor(world: ConsumerWorld, client: Client, kind: Kind) {
    this.#world = world;
    this.kind = kind;
    const window = { records: world.dice.between(1, 12) };
    this.consumer =
      kind === "reader"
        ? client.read(TOPIC, { window })
        : client.consume(TOPIC, { group: "g", window, retry: { attempts: 2 }, ...ackOf(world, kind) });
    void this.#live().then(
      () => this.#end(undefined),
      (error) => this.#end(error),
    );
  }

  get isCommittedFirst(): boolean {
    return this.kind === "none" || this.kind === "none run";
  }

  #end(failure: unknown): void {
    this.isOver = true;
    if (!(failure instanceof TidemarkError && failure.code === "handler_failed")) this.failure = failure;
  }

  // ── what its user does ─────────────────────────────────────────────────────────────────────────────────

  async #live(): Promise<void> {
    const { consumer, kind } = this;
    if (kind === "run" || kind === "none run") return this.#run(consumer as AnyConsumer); // no reader is of this kind
    if (kind === "records") return this.#goThroughRecords();
    for await (const batch of consumer) {
      const tenure = this.#handOut(batch);
      await this.#work();
      if (kind === "manual") await this.#acknowledge(batch, tenure);
      else for (const { offset } of batch.records) tenure.done.add(offset);
    }
  }

  async #goThroughRecords(): Promise<void> {
    for await (const { partition, offset } of this.consumer.records()) {
      await this.#work();
      this.#doneRecords.add(`${partition}/${offset}`);
    }
  }

  #run(consumer: AnyConsumer): Promise<void> {
    const { dice } = this.#world;
    return consumer.run(
      async ({ partition, offset }: PlacedRecord, { batch, signal }) => {
        if (signal.aborted) throw this.#defect("a handler was called for what is lost");
        if (this.#busy.has(partition)) throw this.#defect(`two handlers of partition ${partition} at once`);
        const known = this.#tenures.get(batch.signal);
        const tenure = known?.batch === batch ? known : this.#handOut(batch);
        this.#busy.add(partition);
        await this.#work();
        this.#busy.delete(partition);
        if (!this.isAuto && dice.oneIn(20)) throw new Error("the handler has failed");
        tenure.done.add(offset);
      },
      { concurrency: dice.between(1, 4) },
    );
  }

  async #acknowledge(batch: Batch, tenure: SeenTenure): Promise<void> {
    const { dice } = this.#world;
    if (!this.isAuto && dice.oneIn(4)) return;
    const record = this.isAuto || dice.oneIn(2) ? undefined : dice.pick(batch.records);
    const acked = this.ack(batch, tenure, record);
    if (!this.isAuto && dice.oneIn(2)) await acked;
  }

  /** Whatever of each partition was handed out last. */
  acknowledgeAll(): void {
    if (this.kind !== "manual") return;
    for (const tenure of this.#latest.values()) void this.ack(tenure.batch, tenure);
  }

  async ack(
    batch: Batch,
    { done }: Pick<SeenTenure, "done">,
    record?: { readonly offset: number },
  ): Promise<void> {
    const next = record ? record.offset + 1 : batch.next;
    for (let offset = 0; offset < next; offset += 1) done.add(offset); // as the user says
    const wasLost = batch.signal.aborted;
    const metadata = !this.isAuto && this.#world.dice.oneIn(8) ? "too long" : undefined;
    const outcome = await this.#watch(record ? batch.ackThrough(record, metadata) : batch.ack(metadata));
    const isBad = outcome instanceof TidemarkError && outcome.code === "bad_request";
    if (this.isAuto && isBad) return this.ack(batch, { done }); // it went with one that was
    if (wasLost && !(outcome instanceof FencedError))
      throw this.#defect("an ack of what was lost did not reject");
    if (
      outcome instanceof TidemarkError &&
      !(outcome instanceof FencedError) &&
      outcome.code !== "closed" &&
      outcome.code !== "bad_request"
    )
      throw this.#defect(`an ack was rejected by ${outcome.code}`);
  }

  seek(partition: number, offset: number): void {
    // Said in a way that the client does not seek by itself.
    void this.#watch(this.consumer.seek({ topic: TOPIC, partition, to: { timestamp: offset } }));
  }

  pause(isPaused: boolean): void {
    if (!("pause" in this.consumer)) return;
    void this.#watch(isPaused ? this.consumer.pause() : this.consumer.resume());
  }

  close(): Promise<unknown> {
    return this.#watch(this.consumer.close());
  }

  #watch(promise: Promise<unknown>): Promise<unknown> {
    this.open += 1;
    const settle = (outcome: unknown) => {
      this.open -= 1;
      return outcome;
    };
    return promise.then(settle, settle);
  }

  #work(): Promise<void> {
    return this.isAuto ? Promise.resolve() : new Promise((resolve) => this.#gates.push(resolve));
  }

  /** Somebody comes to an end with what is in hand. */
  finishWork(): void {
    const [finish] = this.#gates.splice(this.#world.dice.below(this.#gates.length), 1);
    finish?.();
  }

  finishAllWork(): void {
    this.isAuto = true;
    for (const finish of this.#gates.splice(0)) finish();
  }

  // ── what is seen of it ─────────────────────────────────────────────────────────────────────────────────

  #handOut(batch: Batch): SeenTenure {
    const { signal, partition } = batch;
    const tenure: SeenTenure = this.#tenures.get(signal) ?? this.#begin(batch);
    this.#tenures.set(signal, tenure);
    this.#latest.set(partition, tenure);
    tenure.batch = batch;
    const told = this.#told.get(partition);
    if (told && !signal.aborted) this.#checkContinued(tenure, told);
    for (const { offset, value } of batch.records) {
      if (offset < tenure.next)
        throw this.#defect(
          `partition ${partition} offset ${offset} was handed out again, after ${tenure.next}`,
        );
      tenure.next = offset + 1;
      if (this.isCommittedFirst) this.#handOutOnce(batch, offset, value);
    }
    return tenure;
  }

  #begin(batch: Batch): SeenTenure {
    const base = this.#told.get(batch.partition)?.base ?? 0;
    return { batch, next: 0, base, asked: base, done: new Set() };
  }

  /** Somebody else has committed, or it was reset: then it is another ownership, and the user is told. */
  #checkContinued({ batch, base, done, ...tenure }: SeenTenure, told: Told): void {
    if (this.kind === "reader" || this.isCommittedFirst || told.generation !== batch.generation) return;
    const asked = Math.max(tenure.asked, ...[...done].map((offset) => offset + 1)); // or it would have been
    if (told.base < base || told.base > asked)
      throw this.#defect(`partition ${batch.partition} went on at ${told.base} after ${base} to ${asked}`);
  }

  #handOutOnce({ topicId, partition }: Batch, offset: number, value: unknown): void {
    const key = `${topicId}/${partition}/${(value as { readonly move: number }).move}`;
    const { handedOutOnce } = this.#world;
    if (handedOutOnce.has(`${key}/${offset}`)) throw this.#defect(`${key}/${offset} was handed out twice`);
    handedOutOnce.add(`${key}/${offset}`);
    if ((this.#handedOutOnce.get(key) ?? 0) > offset) throw this.#defect(`${key}/${offset} came too late`);
    this.#handedOutOnce.set(key, offset + 1);
  }

  /** The last that was handed out of what it still has. */
  nextOf(partition: number): number {
    const tenure = this.#latest.get(partition);
    const isThere = tenure && !tenure.batch.signal.aborted;
    return isThere ? tenure.next : (this.#told.get(partition)?.position ?? 0);
  }

  handleDelivered(frame: ServerFrame): void {
    if (frame.type === "assigned") for (const each of frame.partitions) this.#handleAssigned(each, frame.id);
    if (frame.type === "revoked" && frame.deadlineMs === 0)
      for (const { partition } of frame.partitions) this.#told.delete(partition);
    if (frame.type === "unsubscribed") this.#told.clear();
  }

  #handleAssigned({ partition, generation, reset, ...assigned }: AssignedPartition, id: unknown): void {
    const told = this.#told.get(partition);
    const position = assigned.position ?? 0;
    if (this.#userSeeks.has(id) || (reset !== undefined && told?.generation === generation)) {
      this.#excused.push({ partition, from: this.nextOf(partition), next: position });
      const tenure = this.#latest.get(partition);
      if (tenure?.batch.generation === generation) tenure.next = position;
      if (tenure && reset !== undefined) tenure.base = tenure.asked = position;
      if (told) told.position = position;
    } else if (id !== undefined && told && told.position > position) {
      // What a lost ownership's user has sought was answered in this one, and is taken back.
      const tenure = this.#latest.get(partition);
      if (tenure) tenure.next = Math.min(tenure.next, told.position, position);
    }
    if (told?.generation === generation && reset === undefined) return;
    this.#told.set(partition, {
      generation,
      topicId: assigned.topicId,
      base: assigned.committedOffset ?? position,
      position,
    });
  }

  handleSent(frame: ClientFrame): void {
    if (frame.type === "seek" && typeof frame.to === "object" && "timestamp" in frame.to)
      this.#userSeeks.add(frame.id);
    if (frame.type === "subscribe") this.#userSeeks.clear();
    if (frame.type === "ack") for (const entry of frame.offsets) this.#checkAck(entry);
  }

  #checkAck({ partition, generation, offset }: AckEntry): void {
    const told = this.#told.get(partition);
    if (told?.generation !== generation) throw this.#defect(`ack in generation ${generation}, which is over`);
    if (this.kind === "reader" || told.topicId !== this.#world.topicId) return;
    const tenure = [...this.#tenures.values()].find(
      ({ batch }) =>
        batch.partition === partition && batch.generation === generation && !batch.signal.aborted,
    );
    if (tenure) {
      this.#checkContinued(tenure, told);
      tenure.asked = Math.max(tenure.asked, offset);
    }
    if (this.isCommittedFirst) throw this.#defect("an ack of what was committed before");
    for (const each of this.#world.existing(partition, told.base, offset)) {
      if (
        tenure?.done.has(each) ||
        this.#doneRecords.has(`${partition}/${each}`) ||
        this.#isExcused(partition, each)
      )
        continue;
      throw this.#defect(`partition ${partition}: ack of ${offset}, and ${each} was not done`);
    }
  }

  #isExcused(partition: number, offset: number): boolean {
    return this.#excused.some(
      (each) => each.partition === partition && each.from <= offset && offset < each.next,
    );
  }

  #defect(what: string): Error {
    const error = new Error(`${this.kind}: ${what}`);
    this.#world.defects.push(error);
    return error;
  }
}

function ackOf({ dice }: ConsumerWorld, kind: Kind): Pick<ConsumeOptions, "ack"> {
  if (kind === "paced")
    return { ack: { everyMs: dice.spread(10, 10_000), everyRecords: dice.between(2, 20) } };
  if (kind === "manual") return { ack: "manual" };
  return kind === "none" || kind === "none run" ? { ack: "none" } : {};
}
