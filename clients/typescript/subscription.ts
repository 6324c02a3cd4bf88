// Browser-safe. One subscription, over all the connections that it lives through: what comes is kept for who takes it, what
// is done is acknowledged, and after a loss it goes on where it was. tenure.ts decides, this does.

import type {
  AssignedFrame,
  AssignedPartition,
  ClientFrame,
  RecordsFrame,
  RevokedFrame,
  ServerFrame,
  SubscribeFrame,
  UnsubscribedFrame,
} from "../../src/protocol/frames.ts";
import { SESSION_TIMEOUT_DEFAULT_MS, WINDOW_RECORDS_DEFAULT } from "../../src/protocol/limits.ts";
import type { Place, ResetPolicy } from "../../src/protocol/places.ts";
import { type AckPace, AckSender, ADVICE_AT_LOSS, type Bury } from "./ack-sender.ts";
import { errorOf, errorOfAnswer, FencedError, TidemarkError } from "./errors.ts";
import type { Answer, AnswerListener, Link } from "./link.ts";
import { backoffMs } from "./link-step.ts";
import type { Platform } from "./platform.ts";
import {
  createTenure,
  detach,
  isContinued,
  isFinished,
  isReady,
  keyOf,
  moveTo,
  noteCommitted,
  receive,
  resume,
  type Tenure,
  takeFrame,
  takeWaiters,
  tellReattached,
  waitReattached,
} from "./tenure.ts";

export interface SubscriptionOptions {
  readonly link: Link;
  readonly platform: Platform;
  readonly name: string;
  /** What to subscribe to, asked anew for each connection. */
  readonly request: (subscription: Subscription) => Omit<SubscribeFrame, "type" | "id" | "subscription">;
  readonly pace: AckPace;
  /** The server commits what it sends before it sends it: then nobody acknowledges, and nothing is sent twice. */
  readonly isCommittedFirst?: boolean;
  /** Where a partition that is new here starts, where the server's own start is not it. */
  readonly startOf?: ((assigned: AssignedPartition) => Place | undefined) | undefined;
  /** Where to go on when the place that we were at is not in the log any more. */
  readonly outOfRange?: ResetPolicy | undefined;
  /** Writes these records to another topic and commits `offset`, in one transaction. */
  readonly bury?: Bury | undefined;
  readonly tell: SubscriptionListener;
}

export interface SubscriptionListener {
  readonly assigned: (partitions: readonly AssignedPartition[]) => void;
  /** Nothing more comes of it; what is in hand may be finished until `deadlineMs` have passed. */
  readonly revoked: (frame: RevokedFrame) => void;
  readonly lost: (tenure: Tenure, why: TidemarkError) => void;
  readonly trouble: (error: TidemarkError) => void;
  /** Nothing more is told. */
  readonly ended: () => void;
}

export interface Taken {
  readonly tenure: Tenure;
  readonly frame: RecordsFrame;
}

export class Subscription {
  readonly #options: SubscriptionOptions;
  readonly #tenures = new Map<string, Tenure>();
  /** The same, and those that were lost: of these something may be in hand. */
  readonly #last = new Map<string, Tenure>();
  /** Those with something to hand out, in the order of their turns. */
  readonly #ready = new Set<Tenure>();
  readonly #acks: AckSender;
  readonly #stops: (() => void)[];
  #wakers: (() => void)[] = [];
  #isOpen = false;
  #isFirstAssigned = false;
  #isLeaving = false;
  #end: TidemarkError | "closed" | undefined;
  #failures = 0;
  #stopSession: () => void = () => {};
  readonly #retries = new Set<() => void>();
  #sessionTimeoutMs = SESSION_TIMEOUT_DEFAULT_MS;
  #pending: TidemarkError[] = [];
  #closing: Promise<void> | undefined;
  #lastTenures: readonly Tenure[] | undefined;
  memberId: string | undefined;

  constructor(options: SubscriptionOptions) {
    this.#options = options;
    const { link, name, platform, pace, bury, tell } = options;
    this.#acks = new AckSender({
      ...{ platform, pace, bury, trouble: tell.trouble },
      isOpen: () => this.#isOpen,
      isUrgent: (tenure) => this.#isLeaving || tenure.isRevoking === true,
      send: (type, members, onAnswer) => this.#send(type, members, onAnswer),
      retry: (again) => this.#retry(again),
      succeed: () => {
        this.#failures = 0;
      },
      settled: (tenure) => this.#releaseFinished(tenure),
      fail: (error) => this.fail(error),
    });
    this.#stops = [
      link.listenTo(name, (frame) => this.#handle(frame)),
      link.listen({
        onUp: () => this.#subscribe(),
        onDown: () => this.#handleDown(),
        onEnd: (error) => this.fail(error),
      }),
    ];
    if (link.end) this.fail(link.end);
    else if (link.isUp) this.#subscribe();
  }

  get tenures(): Iterable<Tenure> {
    return this.#tenures.values();
  }

  /** And those that it had in the end. */
  get lastTenures(): Iterable<Tenure> {
    return this.#lastTenures ?? this.tenures;
  }

  get isLeaving(): boolean {
    return this.#isLeaving;
  }

  find(topic: string, partition: number): Tenure {
    const tenure = this.#tenures.get(`${topic}/${partition}`);
    if (tenure) return tenure;
    this.#throwIfEnded();
    throw errorOf(
      "not_assigned",
      `This consumer does not have topic "${topic}" partition ${partition}: it may be another member's, or not be assigned yet`,
    );
  }

  #throwIfEnded(): void {
    if (this.#end !== undefined) throw this.#end === "closed" ? closedError() : this.#end;
  }

  // ── handing out ────────────────────────────────────────────────────────────────────────────────────────

  /** The next records of a partition that nobody has in hand. `undefined` when it is closed. */
  async take(): Promise<Taken | undefined> {
    for (;;) {
      const pending = this.#pending.shift();
      if (pending) throw pending;
      if (this.#end !== undefined && this.#end !== "closed") throw this.#end;
      if (this.#end || this.#isLeaving) return undefined;
      const taken = this.#takeReady();
      if (taken) return taken;
      await new Promise<void>((resolve) => this.#wakers.push(resolve));
    }
  }

  #takeReady(): Taken | undefined {
    for (const tenure of this.#ready) {
      if (!isReady(tenure)) continue;
      this.#ready.delete(tenure);
      const frame = takeFrame(tenure);
      this.#unhold(tenure);
      if (frame) return { tenure, frame };
    }
    return undefined;
  }

  /** The user has gone on from a batch; everything below `processed` is done. */
  finish(tenure: Tenure, processed: number | undefined): void {
    tenure.inHand -= 1;
    if (processed !== undefined) this.advance(tenure, processed);
    this.#offer(tenure);
    this.#offer(this.#tenures.get(keyOf(tenure)));
    this.#releaseFinished(tenure);
  }

  #offer(tenure: Tenure | undefined): void {
    if (!tenure?.queue.length) return;
    this.#ready.add(tenure);
    this.#wake();
  }

  #wake(): void {
    const wakers = this.#wakers;
    this.#wakers = [];
    for (const wake of wakers) wake();
  }

  // ── what is done ───────────────────────────────────────────────────────────────────────────────────────

  /** Everything of the partition below `offset` is done. */
  advance(tenure: Tenure, offset: number): void {
    this.#acks.advance(tenure, offset);
  }

  /** The same; resolves when it is durable. */
  async commit(tenure: Tenure, offset: number, metadata?: string): Promise<void> {
    if (tenure.isLost) throw tenure.ending.signal.reason;
    this.#throwIfEnded();
    if (metadata !== undefined) tenure.metadata = metadata;
    const done = new Promise<void>((resolve, reject) => {
      if ((tenure.committed ?? -1) >= offset) return resolve();
      tenure.waiters.push({ offset, settle: (error) => (error ? reject(error) : resolve()) });
    });
    this.advance(tenure, offset);
    this.#acks.add(tenure); // where an ack of it was refused, it is tried anew
    this.#acks.flush();
    return done;
  }

  /** Everything of the partition below `offset` is durable. */
  settle(tenure: Tenure, offset: number): void {
    this.#acks.settle(tenure, offset);
  }

  // ── the connection ─────────────────────────────────────────────────────────────────────────────────────

  #subscribe(): void {
    const { link, request } = this.#options;
    if (this.#end !== undefined || this.#isLeaving || !link.isUp) return;
    this.#stopRetries();
    this.#isFirstAssigned = true;
    this.#send("subscribe", request(this), (answer) => this.#handleSubscribed(answer));
  }

  #handleSubscribed(answer: Answer | TidemarkError): void {
    if (!(answer instanceof TidemarkError)) return;
    if (answer.code === "connection_lost") return; // the next one is asked
    if (!answer.retriable) return this.fail(answer);
    this.#options.tell.trouble(answer);
    this.#retry(() => this.#subscribe());
  }

  #retry(again: () => void): void {
    const { platform } = this.#options;
    const stop = platform.startTimer(backoffMs(this.#failures, platform.random()), () => {
      this.#retries.delete(stop);
      again();
    });
    this.#retries.add(stop);
    this.#failures += 1;
  }

  #stopRetries(): void {
    for (const stop of this.#retries) stop();
    this.#retries.clear();
  }

  #handleDown(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#stopRetries();
    if (this.#isLeaving) return this.#finish("closed"); // and the membership with its socket
    this.#detachAll();
  }

  #detachAll(): void {
    this.#stopSession();
    // Whatever becomes of the connection: the membership has ended by then. A reader has none, and goes on where it was.
    if (this.memberId !== undefined)
      this.#stopSession = this.#options.platform.startTimer(this.#sessionTimeoutMs, () =>
        this.#loseDetached("The connection was lost for longer than the session timeout"),
      );
    for (const tenure of this.#tenures.values()) {
      detach(tenure, this.#options.isCommittedFirst ?? false);
      if (tenure.isRevoking) this.#lose(tenure, "The connection was lost, and it was being revoked");
    }
    if (!this.#options.isCommittedFirst) this.#ready.clear();
  }

  #loseDetached(why: string): void {
    for (const tenure of this.#tenures.values()) if (tenure.isDetached) this.#lose(tenure, why);
  }

  #handle(frame: ServerFrame): void {
    switch (frame.type) {
      case "subscribed":
        this.#isOpen = true;
        this.memberId = frame.memberId;
        this.#sessionTimeoutMs = frame.sessionTimeoutMs;
        return;
      case "assigned":
        return this.#handleAssigned(frame);
      case "records":
        return this.#handleRecords(frame);
      case "revoked":
        return this.#handleRevoked(frame);
      case "unsubscribed":
        return this.#handleUnsubscribed(frame);
      case "error":
        if (frame.id === undefined) this.#handleError(errorOfAnswer(frame));
        return;
      default:
        return; // answers go to who asked; what is not known is ignored
    }
  }

  /** A policy `none` found no place: who takes next is told, once, and may seek. */
  #handleError(error: TidemarkError): void {
    this.#options.tell.trouble(error);
    if (error.code !== "no_committed_offset" && error.code !== "offset_out_of_range") return;
    this.#pending.push(error);
    this.#wake();
  }

  #handleAssigned({ id, partitions }: AssignedFrame): void {
    for (const assigned of partitions) this.#assign(assigned);
    if (this.#isFirstAssigned) {
      this.#isFirstAssigned = false;
      this.#stopSession();
      this.#loseDetached("The connection was lost, and it went to another member");
    }
    if (id === undefined) this.#options.tell.assigned(partitions);
    this.#acks.flush();
  }

  #assign(assigned: AssignedPartition): void {
    const tenure = this.#tenures.get(keyOf(assigned));
    if (tenure && !tenure.isDetached && tenure.generation === assigned.generation) {
      this.#acks.add(tenure);
      return moveTo(tenure, assigned);
    }
    if (tenure && isContinued(tenure, assigned)) return this.#resume(tenure, assigned);
    if (tenure) this.#lose(tenure, "It was reset, or went to another member and came back");
    const gained = createTenure(assigned, this.memberId === undefined, this.#last.get(keyOf(assigned)));
    this.#tenures.set(keyOf(assigned), gained);
    // A reset leaves it paused at the server, and a `pause` on its way comes to whoever has it then.
    if (this.#last.get(keyOf(assigned))?.hasAskedPause) this.#ask("resume", gained);
    this.#last.set(keyOf(assigned), gained);
    gained.start = this.#options.startOf?.(assigned);
    if (gained.start !== undefined) void this.#seek(gained, gained.start);
  }

  #resume(tenure: Tenure, assigned: AssignedPartition): void {
    const start = resume(tenure, assigned);
    if (start !== undefined && !this.#options.isCommittedFirst) void this.#seek(tenure, start);
    if (tenure.isPaused) this.#ask("pause", tenure);
    this.#acks.add(tenure);
  }

  #handleRecords(frame: RecordsFrame): void {
    const tenure = this.#tenures.get(keyOf(frame));
    if (!tenure) return;
    receive(tenure, frame);
    if (this.#options.isCommittedFirst) this.#hold(tenure, frame);
    if (tenure.processed > tenure.askedNow && tenure.processed > (tenure.committed ?? 0))
      this.#acks.touch(tenure);
    if (isReady(tenure)) this.#offer(tenure);
  }

  #handleRevoked(frame: RevokedFrame): void {
    this.#options.tell.revoked(frame);
    for (const named of frame.partitions) {
      const tenure = this.#tenures.get(keyOf(named));
      if (!tenure || tenure.generation !== named.generation) continue;
      if (frame.deadlineMs === 0) this.#lose(tenure, `It was revoked: ${frame.reason}`);
      else this.#letGo(tenure, frame.deadlineMs);
    }
  }

  /** What is in hand may be finished until the deadline; what waits here goes to the next owner. */
  #letGo(tenure: Tenure, deadlineMs: number): void {
    tenure.isRevoking = true;
    if (!this.#options.isCommittedFirst) tenure.queue = [];
    const stop = this.#options.platform.startTimer(deadlineMs, () =>
      this.#lose(tenure, "It was revoked, and its deadline has passed"),
    );
    tenure.ending.signal.addEventListener("abort", stop);
    this.#acks.touch(tenure);
    this.#releaseFinished(tenure);
  }

  #releaseFinished(tenure: Tenure): void {
    if (tenure.isLost || tenure.inHand > 0 || !isFinished(tenure)) return;
    // Refused where it has gone already: all that was sent of it was acknowledged.
    this.#ask("release", tenure);
    this.#lose(tenure, "It was revoked, and let go");
  }

  #handleUnsubscribed({ id, code }: UnsubscribedFrame): void {
    if (id !== undefined) return;
    this.#isOpen = false;
    // By a memberId only what this consumer itself has sent on an older connection, late, takes it over.
    if (code === "replaced" && this.#options.request(this).instanceId !== undefined)
      return this.fail(
        new TidemarkError("replaced", "Another consumer has taken this membership over, by its instanceId"),
      );
    this.#detachAll();
    if (code === "expired" && this.memberId !== undefined) this.#loseDetached("The session timeout passed");
    this.#subscribe();
  }

  /**
   * What was fenced is lost, before the server says whose it is now: if that is lost with the connection, the tenure would
   * go on behind what its user has dropped.
   */
  disown(tenure: Tenure): void {
    this.#lose(tenure, "The server has fenced it");
  }

  #lose(tenure: Tenure, why: string): void {
    if (tenure.isLost) return;
    tenure.isLost = true;
    if (this.#tenures.get(keyOf(tenure)) === tenure) this.#tenures.delete(keyOf(tenure));
    this.#acks.forget(tenure);
    if (!this.#options.isCommittedFirst) tenure.queue = []; // what was committed for us, nobody else gets
    if (tenure.queue.length === 0) this.#ready.delete(tenure);
    tenure.isPaused = tenure.isAstray = false;
    tenure.seeks = 0;
    this.#offer(tenure);
    const { topic, partition } = tenure;
    const error = new FencedError(
      "fenced_generation",
      `Topic "${topic}" partition ${partition} is not this consumer's any more. ${why}. ${ADVICE_AT_LOSS}`,
      { facts: { topic, partition } },
    );
    tenure.ending.abort(error);
    for (const { settle } of takeWaiters(tenure, () => true)) settle(error);
    tellReattached(tenure);
    if (this.#end !== "closed") this.#options.tell.lost(tenure, error);
  }

  // ── seek, pause, resume, release ───────────────────────────────────────────────────────────────────────

  /** Resolves when the server goes on from there. What was received and not handed out is void. */
  async seek(topic: string, partition: number, to: Place): Promise<void> {
    const tenure = this.find(topic, partition);
    if (tenure.isDetached) await waitReattached(tenure); // or the place where it goes on would be sought after this one
    tenure.ending.signal.throwIfAborted();
    return this.#seek(tenure, to, true);
  }

  async #seek(tenure: Tenure, to: Place, isUsers = false): Promise<void> {
    const { topic, partition } = tenure;
    tenure.seeks += 1;
    const answer = await new Promise<Answer | TidemarkError>((resolve) => {
      this.#send("seek", { topic, partition, to }, (answered) => {
        tenure.seeks -= 1; // here: the `assigned` that answers may find another tenure than the one that asked
        if (!(answered instanceof TidemarkError)) tenure.start = undefined;
        if (!isUsers) this.#handleMove(tenure, answered);
        resolve(answered);
      });
    });
    this.#offer(tenure);
    if (!(answer instanceof TidemarkError)) return;
    if (!isUsers) return this.#handleLostPlace(tenure, to, answer);
    this.#seekAgain(tenure, { offset: tenure.handedOut }); // if that was not to be had before
    throw answer;
  }

  #handleMove(tenure: Tenure, answer: Answer | TidemarkError): void {
    const { isLost, isDetached } = tenure;
    const current = this.#tenures.get(keyOf(tenure));
    // What is being revoked goes on from where it is; of what is lost or detached the next `assigned` says more.
    if (answer instanceof TidemarkError)
      tenure.isAstray = answer.code !== "not_assigned" && !isLost && !isDetached;
    // A seek names no generation: what another ownership wanted would pass over records of this one.
    else if (isLost && current?.seeks === 0) void this.#seek(current, { offset: current.movedFrom });
  }

  /** The place where we were is not to be had. Nothing is handed out before there is one, or there would be a gap. */
  #handleLostPlace(tenure: Tenure, to: Place, error: TidemarkError): void {
    if (!tenure.isAstray) return;
    const { outOfRange = "earliest", tell } = this.#options;
    tell.trouble(error);
    if (error.code === "offset_out_of_range" && outOfRange !== "none")
      return this.#seekAgain(tenure, outOfRange);
    if (error.retriable) return this.#retry(() => this.#seekAgain(tenure, to));
    this.fail(error);
  }

  /** Unless an `assigned` has said more, or a seek of the user's will. */
  #seekAgain(tenure: Tenure, to: Place): void {
    if (tenure.isAstray && tenure.seeks === 0) void this.#seek(tenure, to);
  }

  async pause(topic: string, partition: number): Promise<void> {
    const tenure = this.find(topic, partition);
    tenure.isPaused = true;
    await this.#request("pause", tenure);
  }

  async resume(topic: string, partition: number): Promise<void> {
    const tenure = this.find(topic, partition);
    tenure.isPaused = tenure.isHeld = false;
    this.#offer(tenure);
    await this.#request("resume", tenure);
  }

  async #request(type: "pause" | "resume", tenure: Tenure): Promise<void> {
    const answer = await new Promise<Answer | TidemarkError>((resolve) => this.#ask(type, tenure, resolve));
    // Lost with the connection: whatever comes next says it again.
    if (answer instanceof TidemarkError && answer.code !== "connection_lost") throw answer;
  }

  #ask(type: "pause" | "resume" | "release", tenure: Tenure, onAnswer: AnswerListener = () => {}): void {
    const { topic, partition } = tenure;
    if (type === "pause") tenure.hasAskedPause = true;
    this.#send(type, { partitions: [{ topic, partition }] }, onAnswer);
  }

  #send(type: ClientFrame["type"], members: object, onAnswer: AnswerListener): void {
    const { link, name } = this.#options;
    link.ask((id) => JSON.stringify({ type, id, subscription: name, ...members }), onAnswer);
  }

  // ── committed before it is sent: nobody acknowledges, so nothing else bounds what waits here ───────────────

  #hold(tenure: Tenure, { next }: RecordsFrame): void {
    noteCommitted(tenure, next);
    const queued = [...this.#tenures.values()].flatMap(({ queue }) => queue);
    const waiting = queued.reduce((sum, { records }) => sum + records.length, 0);
    if (tenure.isHeld || waiting < WINDOW_RECORDS_DEFAULT) return;
    tenure.isHeld = true;
    this.#ask("pause", tenure);
  }

  #unhold(tenure: Tenure): void {
    if (!tenure.isHeld || tenure.queue.length > 0) return;
    tenure.isHeld = false;
    if (!tenure.isPaused && !tenure.isLost && !tenure.isDetached) this.#ask("resume", tenure);
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────

  /** Whoever takes gets nothing any more. */
  stopTaking(): void {
    this.#isLeaving = true;
    this.#wake();
  }

  /** Acknowledges what was done, and leaves. */
  close(): Promise<void> {
    this.#closing ??= this.#leave();
    return this.#closing;
  }

  async #leave(): Promise<void> {
    if (this.#end !== undefined) return;
    this.stopTaking();
    // A `subscribe` that was not answered yet has made a member too.
    if (this.#isOpen || this.#options.link.isUp) {
      await this.#flushAll();
      await new Promise<unknown>((resolve) => this.#send("unsubscribe", {}, resolve));
    }
    if (this.#end === undefined) this.#finish("closed");
  }

  /** Until all that was done is durable, or cannot be. */
  async #flushAll(): Promise<void> {
    const undone = [...this.#tenures.values()].map((tenure) => {
      const offset = Math.min(tenure.processed, tenure.reached);
      if (tenure.isReader || (tenure.committed ?? 0) >= offset || tenure.isDetached) return undefined;
      this.#acks.add(tenure);
      return new Promise<void>((resolve) => tenure.waiters.push({ offset, settle: () => resolve() }));
    });
    this.#acks.flush();
    await Promise.all(undone);
  }

  /** It ends with this error: whoever takes gets it. */
  fail(error: TidemarkError): void {
    if (this.#end !== undefined) return;
    const isMember = this.#isOpen;
    this.#finish(error);
    if (isMember) this.#send("unsubscribe", {}, () => {}); // or nobody would get its partitions
  }

  #finish(end: TidemarkError | "closed"): void {
    this.#end = end;
    this.#isOpen = false;
    for (const stop of this.#stops) stop();
    this.#stopSession();
    this.#stopRetries();
    this.#acks.stop();
    this.#lastTenures = [...this.#tenures.values()];
    for (const tenure of this.#lastTenures) this.#lose(tenure, "The consumer has ended");
    this.#wake();
    this.#options.tell.ended();
  }
}

export function closedError(): TidemarkError {
  return new TidemarkError("closed", "It was closed: open another one");
}
