// The driver of one connection: does what the session's step says and brings the results back to it as events.
// It decides nothing; it owns the socket, the timers and the waits of one client, and lets them go when it closes.

import { type ParsedFrame, parseClientFrame, parseSubscribeQuery } from "../core/client-frame.ts";
import type { Log, Scheduler } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import type { SessionEffect, SessionEvent } from "../core/session/events.ts";
import { createSession, type PartitionRef, type Session } from "../core/session/state.ts";
import { stepSession } from "../core/session/step.ts";
import { CLOSE_CODES } from "../protocol/codes.ts";
import type { Durability, PingFrame } from "../protocol/frames.ts";
import { SOCKET_ANSWERS_BYTES_MAX } from "../protocol/limits.ts";
import { commitOffsets } from "../store/commits.ts";
import { problemOf } from "../store/db.ts";
import type { WriteQueue } from "../store/write-queue.ts";
import type { Memberships } from "./memberships.ts";
import type { SharedReads } from "./shared-reads.ts";
import type { SocketHandlers, SocketPort } from "./socket.ts";
import type { WakeUps } from "./wake-ups.ts";

const BINARY_FRAME: ParsedFrame = {
  problem: new Problem("bad_frame", "A frame must be text, found bytes"),
  id: undefined,
};
const PING = JSON.stringify({ type: "ping" } satisfies PingFrame);
const READ_RETRY_MS = 1_000;
/** RFC 6455: the server met something that it did not expect. */
const INTERNAL_ERROR = 1011;

export interface ConnectionDeps {
  readonly durability: Durability;
  readonly queue: WriteQueue;
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
  readonly #query: URLSearchParams;
  readonly #session: Session;
  readonly #events: SessionEvent[] = [];
  /** How to give up the waits of each subscription, by its serial. */
  readonly #waitsBySerial = new Map<number, Set<() => void>>();
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
    this.#takeFrame(() => parseSubscribeQuery(this.#query));
  }

  onMessage(text: string | undefined): void {
    this.#takeFrame(() => (text === undefined ? BINARY_FRAME : parseClientFrame(text)));
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

  /** The server is about to stop. */
  drain(retryAfterMs: number): void {
    this.#dispatch({ type: "draining", retryAfterMs });
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
        return this.#send(effect.text);
      case "ping":
        return this.#ping();
      case "join":
        return this.#join(effect);
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
        return this.#stopWaiting(effect.ref.serial);
      case "commit":
        return this.#commit(effect);
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

  #ping(): void {
    this.#send(PING);
    this.#socket.ping?.();
  }

  #join({ ref, request }: Effect<"join">): void {
    const joined = this.#deps.memberships.join(request, (reason) =>
      this.#dispatch({ type: "ended", ref, reason }),
    );
    joined.then(
      (result) => this.#dispatch({ type: "joined", ref, result }),
      (error) => this.#dispatch({ type: "joinFailed", ref, problem: this.#problemOf(error) }),
    );
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

  #read({ ref, request }: Effect<"read">): void {
    this.#deps.reads.read(request).then(
      (chunk) => this.#dispatch({ type: "chunk", ref, chunk }),
      (error) => this.#readAgain({ type: "read", ref, request }, error),
    );
  }

  #readAgain(effect: Effect<"read">, error: unknown): void {
    if (error instanceof Problem) return; // the partition is gone
    this.#deps.log("read failed", { message: String(error) });
    this.#deps.scheduler.after(READ_RETRY_MS, () => {
      if (!this.#isClosed) this.#read(effect);
    });
  }

  #wait({ ref, partitionId, position }: Effect<"wait">): void {
    const waits = this.#waitsBySerial.get(ref.serial) ?? new Set();
    this.#waitsBySerial.set(ref.serial, waits);
    const cancel = this.#deps.wakeUps.wait(partitionId, position, () => this.#wake(ref, cancel));
    waits.add(cancel);
  }

  #wake(ref: PartitionRef, wait: () => void): void {
    this.#waitsBySerial.get(ref.serial)?.delete(wait);
    this.#dispatch({ type: "grown", ref });
  }

  #stopWaiting(serial: number): void {
    for (const cancel of this.#waitsBySerial.get(serial) ?? []) cancel();
    this.#waitsBySerial.delete(serial);
  }

  #commit({ ref, group, id, acks }: Effect<"commit">): void {
    this.#deps.queue.submit(commitOffsets(group, acks)).then(
      (outcomes) => this.#dispatch({ type: "committed", ref, id, acks, outcomes }),
      (error) => this.#dispatch({ type: "failed", ref, id, acks, problem: this.#problemOf(error) }),
    );
  }

  #setAlarm(delayMs: number): void {
    this.#cancelAlarm?.();
    if (this.#isClosed) return;
    this.#cancelAlarm = this.#deps.scheduler.after(delayMs, () => this.#dispatch({ type: "alarm" }));
  }

  #inBackground(what: string, done: Promise<void>): void {
    done.catch((error) => this.#deps.log(`${what} failed`, { message: String(error) }));
  }

  #problemOf(error: unknown): Problem {
    return problemOf(error, this.#deps.log);
  }
}
