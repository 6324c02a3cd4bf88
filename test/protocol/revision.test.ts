import { expect, test } from "bun:test";
import type * as v from "valibot";
import { describeSchema } from "../../src/http/json-schema.ts";
import { CLOSE_CODES, ERROR_CODES } from "../../src/protocol/codes.ts";
import * as limits from "../../src/protocol/limits.ts";
import { PROTOCOL_REVISION } from "../../src/protocol/revision.ts";
import * as clientSchemas from "../../src/protocol/schemas/client.ts";
import * as serverSchemas from "../../src/protocol/schemas/server.ts";

/** Of the revision in src/protocol/revision.ts. */
const HASH = "665fe82e667c77ff06d28859983b17e43c06be71cdf1659814f9bf7eede29c25";

test("what travels is that of the protocol's revision", async () => {
  const found = await hashOf({
    client: described(clientSchemas),
    server: described(serverSchemas),
    errorCodes: ERROR_CODES,
    closeCodes: CLOSE_CODES,
    limits,
  });
  if (found === HASH) return;
  throw new Error(`The schemas, codes or limits are not those of protocol revision ${PROTOCOL_REVISION}.
If this changes what a client or a server may send or meet: raise PROTOCOL_REVISION in src/protocol/revision.ts and
say in PROTOCOL.md what it brought. A change that an old client cannot ignore is another path (/v2).
Then put this into test/protocol/revision.test.ts: HASH = "${found}"`);
});

test("the hash changes with a limit, a code or a member, and not with the order or the prose", async () => {
  const before = {
    limits: { A: 1, B: 2 },
    codes: { a: { status: 400 } },
    name: { pattern: limits.NAME_PATTERN },
  };
  const same = {
    name: { pattern: limits.NAME_PATTERN },
    codes: { a: { status: 400 } },
    limits: { B: 2, A: 1 },
  };
  expect(await hashOf(same)).toBe(await hashOf(before));
  expect(await hashOf({ ...before, description: "words" })).toBe(await hashOf(before));
  for (const other of [
    { ...before, limits: { A: 1, B: 3 } },
    { ...before, limits: { A: 1 } },
    { ...before, codes: { a: { status: 401 } } },
    { ...before, name: { pattern: /^x$/ } },
  ])
    expect(await hashOf(other)).not.toBe(await hashOf(before));
});

/** Every schema of a module, those inside a table as well. Strict, so that a member more or less is seen. */
function described(module: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(module).map(([name, schema]) => [
      name,
      isSchema(schema) ? describeSchema(schema, "refused") : described(schema as Record<string, unknown>),
    ]),
  );
}

function isSchema(part: unknown): part is v.GenericSchema {
  return typeof part === "object" && part !== null && "kind" in part && part.kind === "schema";
}

async function hashOf(whatTravels: object): Promise<string> {
  return new Bun.CryptoHasher("sha256").update(stableJson(whatTravels)).digest("hex");
}

/** Members in the order of their names; a pattern as its source; no prose. */
function stableJson(value: unknown): string {
  return JSON.stringify(value, (_, part) => {
    if (part instanceof RegExp) return String(part);
    if (typeof part !== "object" || part === null || Array.isArray(part)) return part;
    const members = Object.entries(part).filter(([name, member]) => !isProse(name, member));
    return Object.fromEntries(members.sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

/** A description is words; a member of that name would be an object. */
function isProse(name: string, member: unknown): boolean {
  return name === "description" && typeof member === "string";
}
