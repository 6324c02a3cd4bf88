// The HTTP side: routes and nothing else. What a route does is one call into stream/ or store/.

import { Hono } from "hono";
import type { Log } from "../core/ports.ts";
import { Problem } from "../core/problem.ts";
import { problemOf } from "../store/db.ts";
import { SCHEMA_VERSION, schemaVersion } from "../store/migrations.ts";
import type { Fetches } from "../stream/fetch.ts";
import type { Memberships } from "../stream/memberships.ts";
import type { SocketHandlers, SocketPort } from "../stream/socket.ts";
import type { TransactDeps } from "../stream/transact.ts";
import { addDescriptionRoutes } from "./descriptions.ts";
import { addFetchRoute } from "./fetch.ts";
import { addGroupRoutes } from "./groups.ts";
import { type OriginRules, refuseForeignOrigin, shareWithAllowedOrigin } from "./origin.ts";
import { problemResponse } from "./problems.ts";
import { addTopicRoutes } from "./topics.ts";
import { addTransactionRoutes } from "./transactions.ts";

export interface AppDeps extends TransactDeps {
  readonly fetches: Fetches;
  readonly memberships: Memberships;
  readonly origins: OriginRules;
  readonly log: Log;
  /** Nothing is done any more; what waits for its end is answered. */
  readonly isClosed: () => boolean;
  /** A client on `/v1/stream`: the handlers of its socket. */
  readonly connect: (socket: SocketPort, query: URLSearchParams) => SocketHandlers;
}

/** What the runtime passes with each request. */
export interface AppEnv {
  readonly Bindings: {
    /** Answers undefined where the request is no WebSocket handshake. `accept` is called when the socket is open. */
    readonly upgrade: (
      request: Request,
      accept: (socket: SocketPort) => SocketHandlers,
    ) => Promise<Response | undefined> | Response | undefined;
  };
}

/** Of the protocol, and not in this server yet: refused by name. */
export const NOT_BUILT_ROUTES: readonly (readonly [method: string, path: string])[] = [
  ["GET", "/metrics"],
  ["GET", "/"],
];

/** What a page of another allowed origin may read. */
const SHARED_PATHS = ["/v1/*", "/healthz", "/readyz", "/openapi.json", "/asyncapi.json"];

export function createApp(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.onError((error) => problemResponse(problemOf(error, deps.log)));
  // A Host header that is none makes a URL that is none, and no route's path.
  app.use("*", async (c, next) => {
    if (URL.canParse(c.req.url)) return next();
    return problemResponse(new Problem("bad_request", "The Host header is no host"));
  });
  for (const path of SHARED_PATHS) app.use(path, shareWithAllowedOrigin(deps.origins));
  app.use("/v1/*", refuseForeignOrigin(deps.origins), (_, next) => {
    if (deps.isClosed()) throw new Problem("unavailable", "The server is stopping");
    return next();
  });
  addHealthRoutes(app, deps);
  addTopicRoutes(app, deps);
  addTransactionRoutes(app, deps);
  addFetchRoute(app, deps);
  addGroupRoutes(app, deps);
  addStreamRoute(app, deps);
  addDescriptionRoutes(app);
  addRefusals(app);
  return app;
}

function addHealthRoutes(app: Hono<AppEnv>, { db, log }: AppDeps): void {
  app.get("/healthz", (c) => c.json({ status: "alive" }));
  app.get("/readyz", async (c) => {
    const version = await schemaVersion(db).catch((error) => {
      log("not ready", { message: String(error) });
      throw new Problem("unavailable", "The database cannot be read");
    });
    // One that is newer is another server's, and goes on.
    if (version < SCHEMA_VERSION)
      throw new Problem("unavailable", `The database has schema version ${version}, not ${SCHEMA_VERSION}`);
    return c.json({ status: "ready", durability: db.durability, schemaVersion: version });
  });
}

function addStreamRoute(app: Hono<AppEnv>, { connect }: AppDeps): void {
  app.get("/v1/stream", async (c) => {
    const { searchParams } = new URL(c.req.url);
    const response = await c.env.upgrade(c.req.raw, (socket) => connect(socket, searchParams));
    return response ?? upgradeRequired();
  });
}

function upgradeRequired(): Response {
  const problem = new Problem("bad_request", "/v1/stream speaks WebSocket: upgrade to it");
  const response = problemResponse(problem, 426);
  response.headers.set("upgrade", "websocket");
  return response;
}

function addRefusals(app: Hono<AppEnv>): void {
  for (const [method, path] of NOT_BUILT_ROUTES) {
    app.on(method, path, () =>
      problemResponse(new Problem("bad_request", `${method} ${path} is not built yet`), 501),
    );
  }
  app.notFound((c) => {
    const allowed = methodsOf(app, c.req.path);
    const asked = `${c.req.method} ${c.req.path.slice(0, 200)}`;
    if (allowed.length === 0)
      return problemResponse(new Problem("bad_request", `There is no route ${asked}`), 404);
    const why = `There is no route ${asked}: the path takes ${allowed.join(", ")}`;
    const response = problemResponse(new Problem("bad_request", why, { allowed }), 405);
    response.headers.set("allow", allowed.join(", "));
    return response;
  });
}

function methodsOf(app: Hono<AppEnv>, path: string): readonly string[] {
  return ["GET", "PUT", "POST", "DELETE"].filter((method) =>
    app.router.match(method, path)[0].some(([[, route]]) => route.method === method),
  );
}
