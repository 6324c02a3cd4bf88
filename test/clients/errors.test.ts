import { expect, test } from "bun:test";
import {
  errorOf,
  errorOfAnswer,
  FencedError,
  RETRIABLE,
  TidemarkError,
} from "../../clients/typescript/errors.ts";
import { ERROR_CODES, type ErrorCode } from "../../src/protocol/codes.ts";

const CODES = Object.keys(ERROR_CODES) as ErrorCode[]; // its own keys

test("what the client takes for retriable is what the protocol says, and a lost connection", () => {
  const retriable: readonly string[] = CODES.filter((code) => ERROR_CODES[code].retriable);
  expect(RETRIABLE.toSorted()).toEqual([...retriable, "connection_lost"].sort());
});

test.each(CODES)("an answer with the code %s is an error with its code, its words and its facts", (code) => {
  const error = errorOfAnswer({ code, message: "why", ...{ found: 3 } });
  expect(error).toMatchObject({ code, message: "why", retriable: ERROR_CODES[code].retriable });
  expect(error.facts).toEqual({ code, found: 3 });
});

test.each(["fenced_generation", "fenced_producer", "not_assigned"] as const)(
  "%s is a FencedError",
  (code) => {
    expect(errorOf(code, "why")).toBeInstanceOf(FencedError);
  },
);

test("a code of a newer server is an error that is not retriable", () => {
  const error = errorOfAnswer({ code: "too_early", message: "why" });
  expect(error).toBeInstanceOf(TidemarkError);
  expect([error.code as string, error.retriable]).toEqual(["too_early", false]);
});
