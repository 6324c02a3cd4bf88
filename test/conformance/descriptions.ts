import assert from "node:assert/strict";
import { checksOf } from "./check.ts";
import { bodyOf, call } from "./http.ts";
import { newTopic, subscribe } from "./log.ts";
import { assertMatches } from "./match.ts";

const ROUTES = {
  "/v1/topics": ["get"],
  "/v1/topics/{topic}": ["get", "put", "delete"],
  "/v1/topics/{topic}/records": ["post"],
  "/v1/topics/{topic}/partitions/{partition}/records": ["get", "delete"],
  "/v1/producers/{producer}": ["post"],
  "/v1/groups": ["get"],
  "/v1/groups/{group}": ["get", "delete"],
  "/v1/groups/{group}/topics/{topic}": ["delete"],
  "/v1/groups/{group}/offsets": ["post"],
  "/v1/groups/{group}/reset": ["post"],
  "/v1/transactions": ["post"],
  "/v1/stream": ["get"],
  "/healthz": ["get"],
  "/readyz": ["get"],
};

export const descriptions = checksOf("descriptions", {
  "openapi.json has every route": async (server) => {
    const answer = await call(server, "GET", "/openapi.json");
    const { openapi, paths } = bodyOf(answer);
    assert.match(answer.headers.get("content-type") ?? "", /^application\/json\b/);
    assert.match(openapi, /^3\.1\./);
    for (const [path, methods] of Object.entries(ROUTES))
      for (const method of methods) assert.ok(paths[path]?.[method], `${method} ${path}`);
  },

  "asyncapi.json has every frame of the stream": async (server) => {
    const answer = await call(server, "GET", "/asyncapi.json");
    const { asyncapi } = bodyOf(answer);
    assert.match(answer.headers.get("content-type") ?? "", /^application\/json\b/);
    assert.match(asyncapi, /^3\./);
    const frames = [
      "subscribe",
      "ack",
      "release",
      "seek",
      "pause",
      "resume",
      "produce",
      "transact",
      "unsubscribe",
      "pong",
    ];
    const answers = [
      "subscribed",
      "assigned",
      "records",
      "acked",
      "revoked",
      "unsubscribed",
      "produced",
      "ok",
      "ping",
      "draining",
      "error",
    ];
    for (const type of [...frames, ...answers]) assert.ok(answer.text.includes(`"${type}"`), type);
  },

  "healthz says alive, readyz says ready and what the database promises": async (server) => {
    assert.deepEqual(bodyOf(await call(server, "GET", "/healthz")), { status: "alive" });
    const { status, durability, schemaVersion } = bodyOf(await call(server, "GET", "/readyz"));
    assert.equal(status, "ready");
    assert.ok(Number.isSafeInteger(schemaVersion));
    using reader = await subscribe(server, { topics: [await newTopic(server)], from: "latest" });
    assertMatches(reader.subscribed, { durability });
  },

  "answers are JSON, and say so": async (server) => {
    for (const path of ["/v1/topics", "/v1/groups", "/healthz", "/readyz"]) {
      const { status, headers } = await call(server, "GET", path);
      assert.equal(status, 200);
      assert.match(headers.get("content-type") ?? "", /^application\/json\b/, path);
    }
  },
});
