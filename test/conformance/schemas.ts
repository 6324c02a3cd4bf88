import assert from "node:assert/strict";
import { checksOf } from "./check.ts";
import { assertRefused, bodyOf, call } from "./http.ts";
import { logEndsOf, newTopic, produce, recordsPath } from "./log.ts";
import { assertMatches } from "./match.ts";
import { Socket } from "./socket.ts";

const schema = {
  type: "object",
  properties: { total: { type: "number", minimum: 0 } },
  required: ["total"],
};

export const schemas = checksOf("schemas", {
  "a value that the schema does not allow is schema_violation, and says where": async (server) => {
    const topic = await newTopic(server, { settings: { schema } });
    const records = [{ value: { total: 1 } }, { value: { total: "1" } }];
    const answer = await call(server, "POST", recordsPath(topic), { records });
    const facts = { topic, record: 1, path: "/total", rule: "/properties/total/type" };
    assertRefused(answer, 422, "schema_violation", facts);
    assert.deepEqual(await logEndsOf(server, topic), [0]);
    await produce(server, topic, [{ value: { total: 1 } }]);
  },

  "a line, a frame and a transaction are held against it too": async (server) => {
    const topic = await newTopic(server, { settings: { schema } });
    const headers = { "content-type": "application/x-ndjson" };
    const lines = await call(server, "POST", recordsPath(topic), '{"total":1}\n{"total":-1}\n', { headers });
    assertRefused(lines, 422, "schema_violation", { line: 2, path: "/total" });
    const records = [{ value: {} }];
    const transaction = await call(server, "POST", "/v1/transactions", { appends: [{ topic, records }] });
    assertRefused(transaction, 422, "schema_violation", { append: 0, record: 0, path: "" });
    using socket = await Socket.open(server);
    socket.send({ type: "produce", id: 1, topic, records });
    assertMatches(await socket.expect("error"), { id: 1, code: "schema_violation", record: 0 });
    assert.deepEqual(await logEndsOf(server, topic), [0]);
  },

  "bytes and tombstones are no values that it allows": async (server) => {
    const topic = await newTopic(server, { settings: { schema } });
    for (const record of [{ bytes: "AAEC" }, { key: "k", value: null }])
      assertRefused(
        await call(server, "POST", recordsPath(topic), { records: [record] }),
        422,
        "schema_violation",
      );
  },

  "holds from the answer of the PUT on, and null removes it": async (server) => {
    const topic = await newTopic(server, { records: 2 });
    assertMatches(bodyOf(await call(server, "PUT", `/v1/topics/${topic}`, { schema })), { schema });
    const body = { records: [{ value: 3 }] };
    assertRefused(await call(server, "POST", recordsPath(topic), body), 422, "schema_violation");
    assertMatches(bodyOf(await call(server, "PUT", `/v1/topics/${topic}`, {})), { schema });
    assertMatches(bodyOf(await call(server, "PUT", `/v1/topics/${topic}`, { schema: null })), {
      schema: null,
    });
    bodyOf(await call(server, "POST", recordsPath(topic), body));
    assert.deepEqual(await logEndsOf(server, topic), [3]);
  },

  "what is no schema is bad_request and changes nothing": async (server) => {
    const topic = await newTopic(server, { settings: { schema } });
    for (const wrong of [
      { type: "objekt" },
      { typo: 1, minimun: 3 },
      7,
      { $ref: "#/nowhere" },
      { type: "string", nullable: true },
    ])
      assertRefused(await call(server, "PUT", `/v1/topics/${topic}`, { schema: wrong }), 400, "bad_request");
    assertMatches(bodyOf(await call(server, "GET", `/v1/topics/${topic}`)), { schema });
  },
});
