// Which texts append_record takes: what the decoder and the parser of the server take, byte for byte, for any input.

import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { openTestDatabase } from "../support/database.ts";
import { jsonText } from "../support/json-text-arbitrary.ts";
import { isLongRun } from "../support/long.ts";
import { insertOf, parsedRecord } from "../support/sql-appends.ts";
import { openStockSession, refusalOf, type SqlSession, sqlText } from "../support/sql-session.ts";

setDefaultTimeout(60_000); // where the machine has much else to do

const SEED = 20_250_301;
const RUNS = isLongRun ? 3_000 : 500;

/** Inputs that are taken and inputs that are not: a judge who always says the same learns nothing. */
function expectBoth(taken: number): void {
  expect([taken > RUNS / 8, taken < (RUNS * 7) / 8]).toEqual([true, true]);
}
const database = await openTestDatabase();
let session: SqlSession;
beforeAll(() => {
  session = openStockSession(database.path);
});
beforeEach(async () => {
  await database.empty();
  await database.run("INSERT INTO topics (topic, partition_count, created_at) VALUES ('orders', 1, 0)");
  await database.run("INSERT INTO partitions (topic_id, partition) SELECT topic_id, 0 FROM topics");
});
afterAll(async () => {
  await session.end();
  await database.close();
});

/** Whether SQL takes the bytes as a key. */
const takesKey = async (bytes: Uint8Array) =>
  (await refusalOf(session.run(insertOf("orders", { key: sqlText(bytes), value: "1" })))) === "none";

describe("UTF-8", () => {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const isUtf8 = (bytes: Uint8Array) => {
    try {
      strict.decode(bytes);
      return true;
    } catch {
      return false;
    }
  };
  const edges = [
    0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
  ];
  const byte = fc.oneof(
    fc.constantFrom(...edges, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff),
    fc.integer({ min: 1, max: 255 }),
  );
  const ascii = fc.string({ unit: "grapheme-ascii", maxLength: 20 }).map((text) => [...Buffer.from(text)]);
  const character = fc
    .string({ unit: "binary", minLength: 1, maxLength: 3 })
    .filter((text) => text.isWellFormed() && !text.includes("\0"))
    .map((text) => [...Buffer.from(text)]);
  const piece = fc.oneof(ascii, character, fc.array(byte, { minLength: 1, maxLength: 4 }));
  const bytes = fc.array(piece, { maxLength: 6 }).map((pieces) => Uint8Array.from(pieces.flat()));

  test("is taken, and nothing else, for any bytes", async () => {
    let taken = 0;
    const check = fc.asyncProperty(bytes, async (key) => {
      const takes = await takesKey(key);
      expect([key.toHex(), takes]).toEqual([key.toHex(), isUtf8(key)]);
      taken += takes ? 1 : 0;
    });
    await fc.assert(check, { numRuns: RUNS, seed: SEED });
    expectBoth(taken);
  });

  test("is judged alike for every second byte behind every first, alone and before others", async () => {
    for (const first of [0x80, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5])
      for (const second of edges)
        for (const rest of [[], [0x80], [0x80, 0x80], [0x80, 0x80, 0x80], [0x41]]) {
          const key = Uint8Array.of(first, second, ...rest);
          expect([key.toHex(), await takesKey(key)]).toEqual([key.toHex(), isUtf8(key)]);
        }
  });
});

describe("JSON", () => {
  /** Mostly almost JSON. */
  const almost = fc
    .tuple(
      jsonText,
      fc.nat(),
      fc.constantFrom(
        "",
        ",",
        '"',
        "\\",
        "}",
        "]",
        "0",
        "-",
        ".",
        "e",
        "\t",
        "\n",
        "'",
        "/**/",
        "\u00a0",
        "\ufeff",
        "\u0001",
        "NaN",
        "+",
      ),
    )
    .map(([text, at, extra]) => {
      const cut = at % (text.length + 1);
      return text.slice(0, cut) + extra + text.slice(cut + (at % 2));
    })
    .filter((text) => text.isWellFormed() && !text.includes("\0"));

  test("of a value is what the server takes, and is stored as the server does", async () => {
    let taken = 0;
    const check = fc.asyncProperty(almost, async (text) => {
      const record = isJson(text) ? parsedRecord(`{"value":${text}}`) : undefined;
      const insert = session.run(insertOf("orders", { value: sqlText(text) }));
      expect([text, await refusalOf(insert)]).toEqual([text, record ? "none" : "bad_request"]);
      if (!record) return;
      taken += 1;
      const [row] = await session.run("SELECT hex(value) AS value FROM records ORDER BY offset DESC LIMIT 1");
      expect(row?.value).toBe(Buffer.from(String(record.value)).toString("hex").toUpperCase());
    });
    await fc.assert(check, { numRuns: RUNS, seed: SEED });
    expectBoth(taken);
  });

  const string = fc
    .array(
      fc.constantFrom(
        "a",
        "b",
        "é",
        "🎉",
        " ",
        "\\n",
        "\\\\",
        "\\u0000",
        "\\u0061",
        "\\ud83c",
        "\\uDF89",
        "\\uD7FF",
        "\\ud",
        '\\"',
        "\\/",
        "u0000",
      ),
      { maxLength: 5 },
    )
    .map((pieces) => `"${pieces.join("")}"`);
  const member = fc.tuple(
    string,
    fc.oneof({ weight: 20, arbitrary: string }, fc.constantFrom("1", "null", "[]", "{}")),
  );
  const headers = fc
    .array(member, { maxLength: 4 })
    .map((members) => ` {${members.map(([name, value]) => `${name} :${value}`).join(",")}}\n`);

  test("of headers is what the server takes, and is stored as the server does", async () => {
    let taken = 0;
    const check = fc.asyncProperty(headers, async (text) => {
      const record = isJson(text) ? parsedRecord(`{"value":1,"headers":${text}}`) : undefined;
      const insert = session.run(insertOf("orders", { value: "1", headers: sqlText(text) }));
      expect([text, await refusalOf(insert)]).toEqual([text, record ? "none" : "bad_request"]);
      if (!record) return;
      taken += 1;
      const [row] = await session.run(
        "SELECT hex(headers) AS headers FROM records ORDER BY offset DESC LIMIT 1",
      );
      expect(row?.headers).toBe(
        Buffer.from(record.headers ?? "")
          .toString("hex")
          .toUpperCase(),
      );
    });
    await fc.assert(check, { numRuns: RUNS, seed: SEED });
    expectBoth(taken);
  });
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
