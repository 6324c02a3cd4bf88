// The entry on Cloudflare Workers. One Durable Object is the server, with all its sockets, its write queue and its
// sessions: what reaches a Worker at any place of the network goes there. It keeps nothing of its own; the log is in the
// libSQL database, and an object that is gone is followed by another as a server by its next start.

import { DurableObject } from "cloudflare:workers";
import { Problem } from "../core/problem.ts";
import { problemResponse } from "../http/problems.ts";
import type { SocketHandlers, SocketPort } from "../stream/socket.ts";
import { beginServer } from "./begin-server.ts";
import { ObjectAlarm } from "./object-alarm.ts";
import { openRemote } from "./open-remote.ts";
import { chance, log, scheduler } from "./platform.ts";
import type { Server } from "./server.ts";
import { requirePlatform, type Settings, SettingsError, settingsOf } from "./settings.ts";
import { connect, isHandshake } from "./standard-socket.ts";

const OBJECT_NAME = "server";
/** A database that could not be opened is not tried again for every request that waits. */
const BEGIN_AGAIN_AFTER_MS = 1_000;
/** For each of two steps, and a call of 6 s may be under way at the end of both: the platform allows 30 s together. */
const BEGIN_WITHIN_MS = 8_000;
/** Who sends so much more than is allowed, or so slowly, gets no answer but a connection that ends. */
const REST_BYTES_MAX = 64 * 1024 * 1024;
const REST_WITHIN_MS = 5_000;

export interface Bindings {
  readonly TIDEMARK?: DurableObjectNamespace<TidemarkServer>;
  /** Settings are variables and secrets, under the names of the environment variables. */
  readonly [name: string]: unknown;
}

export default {
  fetch(request, bindings) {
    if (new URL(request.url).pathname === "/healthz") return Response.json({ status: "alive" }); // whatever the object does
    return bindings.TIDEMARK?.getByName(OBJECT_NAME).fetch(request) ?? withoutBinding();
  },
} satisfies ExportedHandler<Bindings>;

type Begun = { readonly server: Server } | { readonly problem: Problem; readonly atMs: number };

export class TidemarkServer extends DurableObject<Bindings> {
  readonly #alarm: ObjectAlarm;
  #begun: Begun | undefined;

  constructor(context: DurableObjectState, bindings: Bindings) {
    super(context, bindings);
    this.#alarm = new ObjectAlarm(context.storage, scheduler, (error) =>
      log("alarm not set", { message: String(error) }),
    );
    void this.#begin();
  }

  override async fetch(request: Request): Promise<Response> {
    const begun = await this.#begin();
    if ("problem" in begun) return problemResponse(begun.problem);
    const response = await begun.server.app.fetch(request, { upgrade });
    if (!response.ok && request.body !== null) await readRest(request.body);
    return response;
  }

  /** By the platform: what is due while nobody is there. It comes again where this rejects. */
  override async alarm(): Promise<void> {
    const begun = await this.#begin();
    if ("problem" in begun) throw begun.problem;
    this.#alarm.ring();
  }

  /** Nothing is delivered to the object meanwhile. */
  #begin(): Begun | Promise<Begun> {
    if (isOver(this.#begun)) return this.#begun;
    return this.ctx.blockConcurrencyWhile(async () => {
      if (!isOver(this.#begun)) this.#begun = await begin(this.env, this.#alarm);
      return this.#begun;
    });
  }
}

/** False also where it failed, and it is time to try again. */
function isOver(begun: Begun | undefined): begun is Begun {
  if (begun === undefined) return false;
  return "server" in begun || scheduler.nowMs() - begun.atMs < BEGIN_AGAIN_AFTER_MS;
}

async function begin(bindings: Bindings, longTimer: ObjectAlarm): Promise<Begun> {
  try {
    return { server: await startServer(readWorkerSettings(bindings), longTimer) };
  } catch (error) {
    log("not started", { message: error instanceof Error ? error.message : String(error) });
    return { problem: problemOfStart(error), atMs: scheduler.nowMs() };
  }
}

async function startServer(settings: WorkerSettings, longTimer: ObjectAlarm): Promise<Server> {
  const withinMs = BEGIN_WITHIN_MS;
  const opened = await openRemote({ ...settings.database, writerId: chance.newId(), scheduler, withinMs });
  return beginServer(opened, settings, { longTimer, withinMs });
}

/** Of a body that was refused before its end. An answer that overtakes it breaks the connection, and is lost with it. */
async function readRest(body: ReadableStream<Uint8Array>): Promise<void> {
  if (body.locked) return;
  const reader = body.getReader();
  let stopWaiting: (() => void) | undefined;
  const isLate = new Promise<{ done: true }>((resolve) => {
    stopWaiting = scheduler.after(REST_WITHIN_MS, () => resolve({ done: true }));
  });
  for (let restBytes = 0; restBytes < REST_BYTES_MAX; ) {
    const chunk = await Promise.race([reader.read(), isLate]);
    if (chunk.done) break;
    restBytes += chunk.value.byteLength;
  }
  stopWaiting?.();
}

// ── settings ─────────────────────────────────────────────────────────────────────────────────────────────

interface WorkerSettings extends Settings {
  readonly database: Extract<Settings["database"], { kind: "remote" }>;
}

/** Throws a SettingsError. */
function readWorkerSettings(bindings: Bindings): WorkerSettings {
  const variables = Object.entries(bindings).flatMap(([name, value]) =>
    typeof value === "string" ? [[name, value] as const] : [],
  );
  const environment = Object.fromEntries(variables);
  const settings = requirePlatform(settingsOf("serve", {}, environment), environment);
  const { database } = settings;
  if (database.kind === "remote") return { ...settings, database };
  throw new SettingsError(
    `cannot open the database file:${database.path}: a Worker has no disk. TURSO_DATABASE_URL takes http:, https: and libsql: here`,
  );
}

/** Settings are named, as they hold no secrets; what is wrong with the database is for the operator's log. */
function problemOfStart(error: unknown): Problem {
  if (error instanceof SettingsError)
    return new Problem("internal", `The server is not set up: ${error.message}`);
  return new Problem("unavailable", "The server could not start on its database; its log says why");
}

function withoutBinding(): Response {
  const what = "it needs the binding TIDEMARK, a Durable Object of the class TidemarkServer";
  return problemResponse(new Problem("internal", `The server is not set up: ${what}`));
}

// ── sockets ──────────────────────────────────────────────────────────────────────────────────────────────

function upgrade(request: Request, accept: (socket: SocketPort) => SocketHandlers): Response | undefined {
  if (!isHandshake(request)) return undefined;
  const { 0: client, 1: server } = new WebSocketPair();
  server.accept();
  connect(server, accept);
  return new Response(null, { status: 101, webSocket: client });
}
