// The driver of one connection: does what the session's step says and brings the results back to it as events.
// It decides nothing; it owns the socket, the timers and the waits of one client, and lets them go when it closes.

import { type ParsedFrame, parseClientFrame, parseSubscribeQuery } from "../core/client-frame.ts";
import { utf8Length } from "../core/json-text.ts";
import type { OwnershipChange } from "../core/ownership.ts";
import type { Log, Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import { errorFrame } from "../core/session/answers.ts";
import type { JoinResult, Seek, SessionEffect, SessionEvent, TopicChange } from "../core/session/events.ts";
import {
  createSession,
  type PartitionRef,
  type Session,
  type SubscriptionRef,
} from "../core/session/state.ts";
import { stepSession } from "../core/session/step.ts";
import { CLOSE_CODES } from "../protocol/codes.ts";
import type { Durability, PingFrame } from "../protocol/frames.ts";
import { CLIENT_FRAME_BYTES_MAX, SOCKET_ANSWERS_BYTES_MAX } from "../protocol/limits.ts";
import { commitOffsets } from "../store/commits.ts";
import { type Db, problemOf } from "../store/db.ts";
import type { EndReason, MemberListener } from "./local-members.ts";
import type { Memberships } from "./memberships.ts";
import { locate, reposition } from "./positions.ts";
import { gainForReader, openReader } from "./readers.ts";
import type { SharedReads } from "./shared-reads.ts";
import type { SocketHandlers, SocketPort } from "./socket.ts";
import { type TransactDeps, TransactionLane } from "./transact.ts";
import type { WakeUps } from "./wake-ups.ts";

const BINARY_FRAME: ParsedFrame = {
  problem: new Problem("bad_frame", "A frame must be text, found bytes"),
  id: undefined,
};
const PING = JSON.stringify({ type: "ping" } satisfies PingFrame);
/** What the database did not give is asked for again after that time, while the socket is open. */
const RETRY_MS = 1_000;
/** RFC 6455: the server met something that it did not expect. */
const INTERNAL_ERROR = 1011;
/** One for all connections: most of them never seek. */
const NOTHING_BEFORE = Promise.resolve();

export interface ConnectionDeps extends TransactDeps {
  readonly durability: Durability;
  readonly db: Db;
  readonly reads: SharedReads;
  readonly wakeUps: WakeUps;
  readonly memberships: Memberships;
  readonly scheduler: Scheduler;
  readonly log: Log;
}

type Effect<T extends SessionEffect["type"]> = Extract<SessionEffect, { type: T }>;

export class Connection implements SocketHandlers {
  readonly #deps: ConnectionDeps;
  readonly #socket: SocketPort;
  /** Until the socket is open. */
  #query: URLSearchParams | undefined;
  readonly #session: Session;
  readonly #events: SessionEvent[] = [];
  /** How to give up the wait of each partition, by the serial of its subscription and its key. */
  readonly #waitsBySerial = new Map<number, Map<string, () => void>>();
  /** The last seek that is looked up: they are answered in their order. */
  #seeking: Promise<void> = NOTHING_BEFORE;
  #transactions: TransactionLane | undefined;
  #cancelAlarm: (() => void) | undefined;
  #isDispatching = false;
  #isClosed = false;

  /** `query` of the URL: parameters stand for a subscribe frame. */
  constructor(socket: SocketPort, query: URLSearchParams, deps: ConnectionDeps) {
    this.#deps = deps;
    this.#socket = socket;
    this.#query = query;
    this.#session = createSession({ durability: deps.durability, nowMs: deps.scheduler.nowMs() });
  }

  onOpen(): void {
    this.#dispatch({ type: "opened" });
    const query = this.#query;
    this.#query = undefined;
    if (query) this.#takeFrame(() => parseSubscribeQuery(query));
  }

  onMessage(text: string | undefined): void {
    if (text !== undefined && isTooLarge(text)) return this.#refuseTooLarge(text);
    this.#takeFrame(() => (text === undefined ? BINARY_FRAME : parseClientFrame(text)));
  }

  /** Nothing of it is read, so it has no id to answer to. */
  #refuseTooLarge(text: string): void {
    const message = `A frame has at most ${CLIENT_FRAME_BYTES_MAX} bytes, found ${utf8Length(text)}`;
    this.#guard(() => {
      this.#perform(errorFrame(new Problem("frame_too_large", message), {}));
      this.#socket.close(CLOSE_CODES.frameTooLarge, "frame_too_large");
    });
  }

  onPong(): void {
    this.#dispatch({ type: "pong" });
  }

  onDrain(): void {
    this.#dispatch({ type: "drained" });
  }

  onClose(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cancelAlarm?.();
    this.#dispatch({ type: "closed" });
  }

  onTopicChange(change: TopicChange): void {
    this.#dispatch({ type: "topicChanged", ...change });
  }

  /** A subscription names it, whether it is there or not. */
  wantsTopic(topic: string): boolean {
    return [...this.#session.subscriptions.values()].some(({ topics }) => topics.includes(topic));
  }

  /** The server is about to stop. */
  drain(retryAfterMs: number): void {
    this.#dispatch({ type: "draining", retryAfterMs });
  }

  /** The time to finish is over. */
  endDrain(): void {
    this.#dispatch({ type: "drainOverdue" });
  }

  #takeFrame(parse: () => ParsedFrame | undefined): void {
    this.#guard(() => {
      const parsed = parse();
      if (!parsed) return;
      if ("frame" in parsed) this.#dispatch({ type: "frame", frame: parsed.frame });
      else this.#dispatch({ type: "badFrame", ...parsed });
    });
  }

  /** A defect ends this connection and no other. */
  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#problemOf(error);
      this.#socket.close(INTERNAL_ERROR, "internal");
    }
  }

  /** An effect may cause an event at once, a wake-up for one: it waits for its turn. */
  #dispatch(event: SessionEvent): void {
    this.#events.push(event);
    if (this.#isDispatching) return;
    this.#isDispatching = true;
    for (let next = this.#events.shift(); next; next = this.#events.shift()) this.#step(next);
    this.#isDispatching = false;
  }

  #step(event: SessionEvent): void {
    this.#guard(() => {
      const around = { nowMs: this.#deps.scheduler.nowMs(), bufferedBytes: this.#socket.bufferedBytes() };
      for (const effect of stepSession(this.#session, event, around)) this.#perform(effect);
    });
  }

  #perform(effect: SessionEffect): void {
    switch (effect.type) {
      case "send":
        return this.#send(JSON.stringify(effect.frame));
      case "sendText":
        return this.#sendText(effect);
      case "ping":
        return this.#ping();
      case "join":
        return this.#join(effect);
      case "openReader":
        return this.#openReader(effect);
      case "release":
        return this.#inBackground(
          "release",
          this.#deps.memberships.release(effect.member, effect.partitions),
        );
      case "stall":
        return this.#stall(effect);
      case "gainReader":
        return this.#gainReader(effect);
      case "leave":
        return this.#leave(effect);
      case "detach":
        return this.#inBackground("detach", this.#deps.memberships.detach(effect.member));
      case "renew":
        return this.#inBackground("renew", this.#deps.memberships.renew(effect.member));
      case "read":
        return this.#read(effect);
      case "wait":
        return this.#wait(effect);
      case "stopWaiting":
        return this.#stopWaiting(effect);
      case "commitAhead":
        return this.#commitAhead(effect);
      case "reposition":
        return this.#reposition(effect);
      case "locate":
        return this.#locate(effect.seek);
      case "commit":
        return this.#commit(effect);
      case "transact":
        return this.#transact(effect);
      case "setAlarm":
        return this.#setAlarm(effect.delayMs);
      case "close":
        return this.#socket.close(effect.code, effect.reason);
    }
  }

  #send(text: string): void {
    if (this.#isClosed) return;
    this.#socket.send(text);
    // Records stop long before this: only answers that nobody reads come here.
    if (this.#socket.bufferedBytes() > SOCKET_ANSWERS_BYTES_MAX)
      this.#socket.close(CLOSE_CODES.slowDown, "slow down");
  }

  #sendText({ text, tellsTaken }: Effect<"sendText">): void {
    this.#send(text);
    // Where the socket still holds some of it, its own `drained` comes later.
    if (tellsTaken && this.#socket.bufferedBytes() === 0) this.#dispatch({ type: "drained" });
  }

  #ping(): void {
    this.#send(PING);
    this.#socket.ping?.();
  }

  #join({ ref, request }: Effect<"join">): void {
    const member = new Member(ref, (event) => this.#dispatch(event));
    const onRefused = (error: unknown) =>
      this.#dispatch({ type: "openFailed", ref, problem: this.#problemOf(error) });
    this.#deps.memberships.join(request, member, onRefused);
  }

  #openReader({ ref, request }: Effect<"openReader">): void {
    openReader(this.#deps, request).then(
      (partitions) => this.#dispatch({ type: "readerOpened", ref, partitions }),
      (error) => this.#dispatch({ type: "openFailed", ref, problem: this.#problemOf(error) }),
    );
  }

  #gainReader(effect: Effect<"gainReader">): void {
    const { ref, request, knownPartitionIds } = effect;
    gainForReader(this.#deps, request, knownPartitionIds).then(
      (partitions) => this.#dispatch({ type: "readerGained", ref, partitions }),
      (error) => this.#again("gain", error, () => this.#gainReader(effect)),
    );
  }

  /** The client has been told that they are gone: until it is written nobody gets them. */
  #stall(effect: Effect<"stall">): void {
    this.#deps.memberships
      .stall(effect.member, effect.partitions)
      .catch((error) => this.#again("stall", error, () => this.#stall(effect)));
  }

  #leave({ member, answer }: Effect<"leave">): void {
    const left = this.#deps.memberships.leave(member);
    if (answer) {
      left.then(
        () => this.#dispatch({ type: "left", ...answer }),
        (error) => this.#dispatch({ type: "left", ...answer, problem: this.#problemOf(error) }),
      );
    } else {
      this.#inBackground("leave", left); // what cannot be written now is ended by its lease
    }
  }

  #read(effect: Effect<"read">): void {
    const { ref, request } = effect;
    this.#deps.reads.read(request).then(
      (chunk) => this.#dispatch({ type: "chunk", ref, chunk }),
      (error) => {
        if (error instanceof Problem) this.#dispatch({ type: "readGone", ref });
        else this.#again("read", error, () => this.#read(effect));
      },
    );
  }

  #wait({ ref, partitionId, position }: Effect<"wait">): void {
    const waits = this.#waitsBySerial.get(ref.serial) ?? new Map<string, () => void>();
    this.#waitsBySerial.set(ref.serial, waits);
    waits.get(ref.partitionKey)?.();
    const cancel = this.#deps.wakeUps.wait(partitionId, position, () => this.#wake(ref, cancel));
    waits.set(ref.partitionKey, cancel);
  }

  #wake(ref: PartitionRef, wait: () => void): void {
    const waits = this.#waitsBySerial.get(ref.serial);
    if (waits?.get(ref.partitionKey) === wait) waits.delete(ref.partitionKey);
    this.#dispatch({ type: "grown", ref });
  }

  #stopWaiting({ ref, partitionKey }: Effect<"stopWaiting">): void {
    const waits = this.#waitsBySerial.get(ref.serial);
    if (!waits) return;
    const keys = partitionKey === undefined ? [...waits.keys()] : [partitionKey];
    for (const key of keys) {
      waits.get(key)?.();
      waits.delete(key);
    }
    if (waits.size === 0) this.#waitsBySerial.delete(ref.serial);
  }

  #commitAhead({ ref, group, ack, chunk }: Effect<"commitAhead">): void {
    this.#deps.queue.submit(commitOffsets(group, [ack])).then(
      ([outcome]) =>
        this.#dispatch({ type: "committedAhead", ref, chunk, isFenced: outcome?.code !== undefined }),
      (error) =>
        this.#again("commit before sending", error, () => this.#dispatch({ type: "commitAheadFailed", ref })),
    );
  }

  #reposition(effect: Effect<"reposition">): void {
    const { ref, request } = effect;
    reposition(this.#deps, request).then(
      (to) => to && this.#dispatch({ type: "repositioned", ref, to }),
      (error) => this.#again("reposition", error, () => this.#reposition(effect)),
    );
  }

  #locate(seek: Seek): void {
    this.#seeking = this.#seeking.then(async () => {
      const outcome = await locate(this.#deps, seek).catch((error) => ({ problem: this.#problemOf(error) }));
      this.#dispatch({ type: "located", seek, outcome });
    });
  }

  #transact({ id, answer, transaction }: Effect<"transact">): void {
    this.#transactions ??= new TransactionLane(this.#deps);
    const transacted = { type: "transacted", id, answer, commits: transaction.commits } as const;
    this.#transactions.transact(transaction).then(
      (written) => this.#dispatch({ ...transacted, outcome: { written } }),
      (error) => this.#dispatch({ ...transacted, outcome: { problem: this.#problemOf(error) } }),
    );
  }

  #commit({ ref, group, id, acks }: Effect<"commit">): void {
    // Its answer frees the window, which leaves room for a few reads: it may wait for as many.
    this.#deps.queue.submit({ ...commitOffsets(group, acks), isPatient: true }).then(
      (outcomes) => this.#dispatch({ type: "committed", ref, id, acks, outcomes }),
      (error) => this.#dispatch({ type: "commitFailed", ref, id, acks, problem: this.#problemOf(error) }),
    );
  }

  #setAlarm(delayMs: number): void {
    this.#cancelAlarm?.();
    if (this.#isClosed) return;
    this.#cancelAlarm = this.#deps.scheduler.after(delayMs, () => this.#dispatch({ type: "alarm" }));
  }

  /** The client has nothing to be told: it waits for records, and the database for its turn. */
  #again(what: string, error: unknown, retry: () => void): void {
    this.#deps.log(`${what} failed`, { message: String(error) });
    this.#deps.scheduler.after(RETRY_MS, () => {
      if (!this.#isClosed) retry();
    });
  }

  #inBackground(what: string, done: Promise<void>): void {
    done.catch((error) => this.#deps.log(`${what} failed`, { message: String(error) }));
  }

  #problemOf(error: unknown): Problem {
    return problemOf(error, this.#deps.log);
  }
}

/** What a subscription is told of its group. */
class Member implements MemberListener {
  readonly #ref: SubscriptionRef;
  readonly #dispatch: (event: SessionEvent) => void;

  constructor(ref: SubscriptionRef, dispatch: (event: SessionEvent) => void) {
    this.#ref = ref;
    this.#dispatch = dispatch;
  }

  onJoined(result: JoinResult): void {
    this.#dispatch({ type: "joined", ref: this.#ref, result });
  }

  onChange(change: OwnershipChange): void {
    this.#dispatch({ type: "ownership", ref: this.#ref, change });
  }

  onEnd(reason: EndReason): void {
    this.#dispatch({ type: "ended", ref: this.#ref, reason });
  }
}

/** No character takes more than three bytes of UTF-8 a unit: most frames need not be measured. */
function isTooLarge(text: string): boolean {
  return text.length * 3 > CLIENT_FRAME_BYTES_MAX && utf8Length(text) > CLIENT_FRAME_BYTES_MAX;
}
