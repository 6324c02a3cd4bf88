// Whole servers on a real database in a file that they share, with sockets in memory and time that the test moves. They
// know of each other by that file only.

import type { Scheduler } from "../../src/core/ports.ts";
import type { AckEntry, ServerFrame, SubscribeFrame } from "../../src/protocol/frames.ts";
import { createServer } from "../../src/runtimes/server.ts";
import { type Db, DbError } from "../../src/store/db.ts";
import type { SocketHandlers, SocketPort } from "../../src/stream/socket.ts";
import { WatchedDb } from "./database.ts";
import { type FakeTime, fakeChance } from "./fake-time.ts";

export type FrameOf<T extends ServerFrame["type"]> = Extract<ServerFrame, { type: T }>;

/** The client's end of a socket in memory. It answers pings unless it is told not to. */
export class MemoryClient {
  readonly port: SocketPort;
  closed: { code: number; reason: string } | undefined;
  answersPings = true;
  /** How many frames have come, pings aside. */
  received = 0;
  onFrame: ((frame: ServerFrame) => void) | undefined;
  readonly #instance: Pausable;
  #handlers: SocketHandlers | undefined;
  #frames: ServerFrame[] = [];

  constructor(instance: Pausable) {
    this.#instance = instance;
    this.port = {
      send: (text) => this.#receive(JSON.parse(text)),
      bufferedBytes: () => 0,
      close: (code, reason) => this.#close({ code, reason }),
    };
  }

  open(handlers: SocketHandlers): void {
    this.#handlers = handlers;
    handlers.onOpen();
  }

  /** A server that stands still reads it when it goes on. */
  say(frame: Readonly<Record<string, unknown>>): void {
    this.#instance.soon(() => this.#handlers?.onMessage(JSON.stringify(frame)));
  }

  subscribe(options: Partial<SubscribeFrame> = {}): void {
    this.say({ type: "subscribe", topics: ["orders"], group: "billing", ...options });
  }

  ack(...offsets: readonly AckEntry[]): void {
    this.say({ type: "ack", offsets });
  }

  hangUp(): void {
    if (this.closed) return;
    this.closed = { code: 1006, reason: "" };
    this.#instance.soon(() => this.#handlers?.onClose());
  }

  /** What has come since the last time, in order; pings aside. */
  take(): readonly ServerFrame[] {
    return this.#frames.splice(0);
  }

  /** The frames of one type that have come; everything else is dropped. */
  takeOnly<T extends ServerFrame["type"]>(type: T): readonly FrameOf<T>[] {
    return this.take().filter((frame): frame is FrameOf<T> => frame.type === type);
  }

  #close(how: { code: number; reason: string }): void {
    if (this.closed) return;
    this.closed = how;
    this.#handlers?.onClose(); // before close() returns, as Bun does
  }

  #receive(frame: ServerFrame): void {
    if (this.closed) return;
    if (frame.type === "ping") {
      if (this.answersPings) this.say({ type: "pong" });
      return;
    }
    this.#frames.push(frame);
    this.received += 1;
    this.onFrame?.(frame);
  }
}

/** One server's time: it can stand still, as under SIGSTOP, and be off. */
class Pausable implements Scheduler {
  readonly #time: FakeTime;
  readonly #offsetMs: number;
  /** What has come due while it stood still; undefined while it does not. */
  #missed: (() => void)[] | undefined;

  constructor(time: FakeTime, offsetMs: number) {
    this.#time = time;
    this.#offsetMs = offsetMs;
  }

  nowMs(): number {
    return this.#time.nowMs() + this.#offsetMs;
  }

  after(delayMs: number, run: () => void): () => void {
    let isWanted = true;
    const cancel = this.#time.after(delayMs, () => this.#do(() => isWanted && run()));
    return () => {
      isWanted = false;
      cancel();
    };
  }

  soon(run: () => void): void {
    this.#time.soon(() => this.#do(run));
  }

  pause(): void {
    this.#missed ??= [];
  }

  resume(): void {
    const missed = this.#missed ?? [];
    this.#missed = undefined;
    for (const run of missed) this.#time.soon(run);
  }

  get isPaused(): boolean {
    return this.#missed !== undefined;
  }

  #do(run: () => void): void {
    if (this.#missed) this.#missed.push(run);
    else run();
  }
}

export interface InstanceOptions {
  readonly db: Db;
  readonly time: FakeTime;
  /** How its members and itself are called. */
  readonly name: string;
  /** Its clock is that much ahead of the others'. */
  readonly clockOffsetMs?: number;
}

export type Instance = Awaited<ReturnType<typeof startInstance>>;

export async function startInstance({ db, time, name, clockOffsetMs = 0 }: InstanceOptions) {
  const watched = new WatchedDb(db, { isShared: true });
  const scheduler = new Pausable(time, clockOffsetMs);
  const log: string[] = [];
  const clients: MemoryClient[] = [];
  const server = createServer({
    db: watched,
    scheduler,
    chance: fakeChance({ ids: name, random: () => 0.5 }),
    log: (event, facts) => log.push(`${name}: ${event} ${JSON.stringify(facts ?? {})}`),
    origins: { allowed: [], allowsLoopback: true },
    createsTopicsOnFirstUse: true,
  });
  await server.start();

  const request = (path: string, init?: RequestInit) => new Request(`http://localhost${path}`, init);
  const call = (method: string, path: string, body?: unknown) => {
    const init = { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    return server.app.fetch(request(path, init));
  };
  const fail = (failure: "io" | "busy") => () => {
    throw new DbError(failure, `${name} is cut off`);
  };

  return {
    name,
    log,
    clients,
    watched,
    call,
    get isPaused() {
      return scheduler.isPaused;
    },

    async connect(): Promise<MemoryClient> {
      const client = new MemoryClient(scheduler);
      clients.push(client);
      await server.app.fetch(request("/v1/stream"), {
        upgrade: (_: Request, accept: (socket: SocketPort) => SocketHandlers) => {
          client.open(accept(client.port));
          return new Response(null);
        },
      });
      return client;
    },

    async join(subscribe: Partial<SubscribeFrame> = {}): Promise<MemoryClient> {
      const client = await this.connect();
      client.subscribe(subscribe);
      await time.settle();
      return client;
    },

    async produce(count: number, partition = 0, topic = "orders"): Promise<void> {
      const records = Array.from({ length: count }, (_, value) => ({ value, partition }));
      const response = await call("POST", `/v1/topics/${topic}/records`, { records });
      if (!response.ok) throw new Error(await response.text());
    },

    /** As SIGSTOP does: nothing of it happens, its clients' sockets stay open. */
    pause: () => scheduler.pause(),
    resume: () => scheduler.resume(),

    /** The database does not answer it any more, or its lock is held by somebody. */
    cutOff(failure: "io" | "busy" = "io"): void {
      watched.onWrite = fail(failure);
      watched.onRead = failure === "io" ? fail(failure) : undefined;
    },

    letBack(): void {
      watched.onWrite = undefined;
      watched.onRead = undefined;
    },

    /** As kill -9 does: nothing of it happens ever again. */
    crash(): void {
      scheduler.pause();
      this.cutOff();
      for (const client of clients) client.closed ??= { code: 1006, reason: "" };
    },

    async stop(): Promise<void> {
      const stopped = server.stop();
      await time.advance(5_000);
      await stopped;
    },
  };
}
