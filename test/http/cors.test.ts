// What a browser lets a page of another origin read, and what it asks before it sends: over the real server.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { sendRaw } from "../support/raw-http.ts";
import { startServer, type TestServer, temporaryFolder } from "../support/server.ts";

const APP = "https://app.example";
const LOCAL_PAGE = "http://localhost:5173";
const FOREIGN = ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null"];
const SHARED = ["/v1/topics", "/healthz", "/readyz", "/openapi.json", "/asyncapi.json"];

const folder = temporaryFolder();
let dev: TestServer;
let serve: TestServer;

beforeAll(async () => {
  const flags = ["--allow-origin", APP];
  [dev, serve] = await Promise.all([
    startServer(join(folder.path, "dev.db"), { flags }),
    startServer(join(folder.path, "serve.db"), { mode: "serve", flags }),
  ]);
});
afterAll(async () => {
  await Promise.all([dev.kill("SIGKILL"), serve.kill("SIGKILL")]);
  folder.remove();
});

/** All that CORS has to say, and what a cache must know. */
function sharingOf({ headers }: { readonly headers: Headers }): Readonly<Record<string, string>> {
  const isOfCors = ([name]: [string, string]) => name.startsWith("access-control-") || name === "vary";
  return Object.fromEntries([...headers].filter(isOfCors));
}

const shared = (origin: string) => ({
  "access-control-allow-origin": origin,
  "access-control-expose-headers": "Retry-After",
  vary: "Origin",
});
const NOT_SHARED = { vary: "Origin" };

function call(server: TestServer, path: string, origin?: string, init: RequestInit = {}): Promise<Response> {
  const headers = { ...init.headers, ...(origin !== undefined && { origin }) };
  return fetch(server.url + path, { ...init, headers });
}

function preflight(server: TestServer, path: string, origin: string, headers = "content-type") {
  const asked = { "access-control-request-method": "PUT", "access-control-request-headers": headers };
  return call(server, path, origin, { method: "OPTIONS", headers: asked });
}

describe("a page of an allowed origin", () => {
  test("reads every route's answer", async () => {
    for (const [server, origin] of [
      [dev, APP],
      [dev, LOCAL_PAGE],
      [serve, APP],
      [serve, serve.url],
    ] as const)
      for (const path of SHARED) {
        const response = await call(server, path, origin);
        expect([path, response.status, sharingOf(response)]).toEqual([path, 200, shared(origin)]);
        expect((await response.text()).length).toBeGreaterThan(2);
      }
  });

  test("reads what it wrote, what was refused, and that there was nothing", async () => {
    const body = '{"partitionCount":2}';
    for (const [method, path, status, init] of [
      ["PUT", "/v1/topics/mine", 201, { body }],
      ["PUT", "/v1/topics/mine", 409, { body: '{"partitionCount":1}' }],
      ["GET", "/v1/topics/nowhere", 404, {}],
      ["GET", "/v1/nothing", 404, {}],
      ["POST", "/v1/topics/mine", 405, {}],
      ["GET", "/v1/stream", 426, {}],
      ["DELETE", "/v1/topics/mine", 204, {}],
    ] as const) {
      const response = await call(serve, path, APP, { method, ...init });
      expect([path, response.status, sharingOf(response)]).toEqual([path, status, shared(APP)]);
      if (status >= 400) expect(await response.json()).toMatchObject({ status });
    }
  });

  test("may send what its preflight asks for: methods, a token, JSON", async () => {
    for (const path of [...SHARED, "/v1/topics/mine", "/v1/topics/t/partitions/0/records?before=1"]) {
      const response = await preflight(serve, path, APP, "authorization,content-type");
      expect([path, response.status, await response.text(), sharingOf(response)]).toEqual([
        path,
        204,
        "",
        {
          ...shared(APP),
          "access-control-allow-methods": "GET,HEAD,PUT,POST,DELETE",
          "access-control-allow-headers": "Authorization,Content-Type",
          "access-control-max-age": "600",
          vary: "Origin, Access-Control-Request-Headers",
        },
      ]);
    }
    expect((await call(serve, "/v1/topics/mine")).status).toBe(404); // asking has made none
  });

  test("reads why a host is refused that the server is not known by", async () => {
    const head = ["GET /v1/topics HTTP/1.1", "Host: elsewhere.example", `Origin: ${APP}`];
    const answer = await sendRaw(serve.url, head);
    expect([answer.status, sharingOf(answer)]).toEqual([403, shared(APP)]);
    expect(answer.body).toContain("--allow-origin");
  });

  test("opens a WebSocket as before", async () => {
    for (const origin of [APP, serve.url]) {
      const answer = await sendRaw(serve.url, [...HANDSHAKE, `Origin: ${origin}`]);
      expect([answer.status, sharingOf(answer)]).toEqual([101, {}]);
    }
  });
});

const HANDSHAKE = [
  "GET /v1/stream HTTP/1.1",
  "Upgrade: websocket",
  "Connection: Upgrade",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

describe("a page of any other origin", () => {
  test("is refused under /v1, and told nothing by CORS", async () => {
    for (const [server, origins] of [
      [dev, FOREIGN],
      [serve, [...FOREIGN, LOCAL_PAGE]],
    ] as const)
      for (const origin of origins) {
        const answers = [
          await call(server, "/v1/topics", origin),
          await call(server, "/v1/topics/theirs", origin, { method: "PUT" }),
          await preflight(server, "/v1/topics/theirs", origin),
        ];
        for (const answer of answers)
          expect([origin, answer.status, sharingOf(answer)]).toEqual([origin, 403, NOT_SHARED]);
        expect((await sendRaw(server.url, [...HANDSHAKE, `Origin: ${origin}`])).status).toBe(403);
      }
    for (const server of [dev, serve]) expect((await call(server, "/v1/topics/theirs")).status).toBe(404);
  });

  test("cannot read the other routes", async () => {
    for (const path of SHARED.slice(1))
      for (const origin of FOREIGN) {
        expect(sharingOf(await call(serve, path, origin))).toEqual(NOT_SHARED);
        const asked = await preflight(serve, path, origin);
        expect([asked.status, sharingOf(asked)]).toEqual([405, NOT_SHARED]);
      }
  });
});

test("who is no page gets the same as before, and a cache is told that a page does not", async () => {
  for (const path of [...SHARED, "/v1/nothing"]) {
    const response = await call(serve, path);
    expect(sharingOf(response)).toEqual(NOT_SHARED);
    expect(Number(response.headers.get("content-length"))).toBe((await response.arrayBuffer()).byteLength);
  }
});
