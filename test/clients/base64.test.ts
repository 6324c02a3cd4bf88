// The bytes of a record as text, by the standard's methods and without them.

import { afterEach, describe, expect, test } from "bun:test";
import { decodeBase64, encodeBase64 } from "../../clients/typescript/base64.ts";

const STANDARD = {
  fromBase64: Uint8Array.fromBase64,
  toBase64: Uint8Array.prototype.toBase64,
};

/** As in Node 24. */
function removeStandard(): void {
  Reflect.deleteProperty(Uint8Array, "fromBase64");
  Reflect.deleteProperty(Uint8Array.prototype, "toBase64");
}

afterEach(() => {
  Object.defineProperty(Uint8Array, "fromBase64", { value: STANDARD.fromBase64, configurable: true });
  Object.defineProperty(Uint8Array.prototype, "toBase64", { value: STANDARD.toBase64, configurable: true });
});

const ALL_BYTES = Uint8Array.from({ length: 256 }, (_, byte) => byte);
const MEBIBYTE = new Uint8Array(1024 * 1024).fill(0xfe);

describe.each([
  ["with the standard's methods", () => {}],
  ["without them", removeStandard],
])("base64 %s", (_, prepare) => {
  test("is what RFC 4648 says, with padding", () => {
    prepare();
    for (const [text, base64] of [
      ["", ""],
      ["f", "Zg=="],
      ["fo", "Zm8="],
      ["foo", "Zm9v"],
      ["foobar", "Zm9vYmFy"],
    ] as const) {
      expect(encodeBase64(new TextEncoder().encode(text))).toBe(base64);
      expect(new TextDecoder().decode(decodeBase64(base64))).toBe(text);
    }
  });

  test("keeps every byte, and as many as a record may have", () => {
    prepare();
    for (const bytes of [ALL_BYTES, ALL_BYTES.subarray(250), MEBIBYTE])
      expect(Buffer.compare(decodeBase64(encodeBase64(bytes)), bytes)).toBe(0);
    expect(encodeBase64(ALL_BYTES)).toBe(Buffer.from(ALL_BYTES).toString("base64"));
  });
});
