// A million frames through the codec: whatever the text, it is a frame or a problem that says why not, soon.

import { describe, expect, test } from "bun:test";
import { type ParsedFrame, parseClientFrame, parseSubscribeQuery } from "../../src/core/client-frame.ts";
import { Problem } from "../../src/core/problem.ts";
import { ERROR_CODES } from "../../src/protocol/codes.ts";
import { Dice } from "../support/dice.ts";
import { isLongRun } from "../support/long.ts";
import { type FrameFacts, factsOf } from "./frame-shape.ts";
import { MutatedFrames } from "./mutated-frames.ts";
import { mutatedQuery } from "./mutated-queries.ts";
import { seedOfRun } from "./seed.ts";

const FRAMES = isLongRun ? 1_000_000 : 20_000;
const QUERIES = FRAMES / 10;
/** Of a problem as it is told. */
const PROBLEM_CHARACTERS_MAX = 600;
/** A guard against hanging, not a measure of speed. */
const HANG_MS = 1_000;
/** To say a frame again costs more than to judge it: of so many it is done with one. */
const SAID_AGAIN_EVERY = 8;
const LONG_MS = 600_000;

const seed = seedOfRun();

// Not expect(): a million calls of it would take longer than the frames.
function require(isSo: boolean, message: string): void {
  if (!isSo) throw new Error(message);
}

/** Runs the check, and names the frame where it fails. */
function about(text: string, check: () => void): void {
  try {
    check();
  } catch (error) {
    const excerpt = text.length > 2_000 ? `${text.slice(0, 2_000)}… (${text.length} characters)` : text;
    throw new Error(`SEED=${seed}: ${JSON.stringify(excerpt)}: ${String(error)}`);
  }
}

class Counts {
  total = 0;
  accepted = 0;
  slowestMs = 0;
  readonly byCode = new Map<string, number>();

  /** Parses, and takes the time of it. */
  note<T extends ParsedFrame | undefined>(parse: () => T): T {
    const startMs = performance.now();
    const parsed = parse();
    this.slowestMs = Math.max(this.slowestMs, performance.now() - startMs);
    this.total += 1;
    const code = parsed && "problem" in parsed ? parsed.problem.code : undefined;
    if (parsed && code === undefined) this.accepted += 1;
    if (code !== undefined) this.byCode.set(code, (this.byCode.get(code) ?? 0) + 1);
    return parsed;
  }

  toString(): string {
    const codes = [...this.byCode].map(([code, count]) => `${count} ${code}`).join(", ");
    return `${this.accepted} accepted, ${codes}; the slowest took ${this.slowestMs.toFixed(1)} ms; SEED=${seed}`;
  }
}

function checkProblem(parsed: ParsedFrame): void {
  if ("frame" in parsed) return;
  const { problem } = parsed;
  require(problem instanceof Problem && Object.hasOwn(ERROR_CODES, problem.code), "it is no known problem");
  const { length } = JSON.stringify({ ...problem.facts, message: problem.message });
  // Whoever sends a megabyte of nonsense must not be sent a megabyte back.
  require(length <=
    PROBLEM_CHARACTERS_MAX, `a problem of ${length} characters: ${problem.message.slice(0, 200)}`);
}

function checkShape(parsed: ParsedFrame, { isBadFrame, id }: FrameFacts): void {
  const isRefusedSo = "problem" in parsed && parsed.problem.code === "bad_frame";
  require(isRefusedSo === isBadFrame, `bad_frame is ${isRefusedSo}, and by its shape ${isBadFrame}`);
  const answeredId = "frame" in parsed ? parsed.frame.id : parsed.id;
  require(answeredId === id, `the answer has the id ${answeredId}`);
}

/** White space changes nothing; and what is accepted is accepted as JSON.stringify writes it, as the same frame. */
function checkSaidAgain(text: string, parsed: ParsedFrame): void {
  require(wordsOf(parseClientFrame(` \r\n\t${text} `)) === wordsOf(parsed), "white space makes a difference");
  if ("problem" in parsed) return;
  const again = parseClientFrame(JSON.stringify(JSON.parse(text)));
  if ("problem" in again) throw new Error(`said again it is refused: ${again.problem.message}`);
  require(wordsOf(again) === wordsOf(parsed), "said again it is another frame");
}

/** What both ways of writing a frame must agree in. Of records to produce not the values, which stay as they are written. */
function wordsOf(parsed: ParsedFrame): string {
  if ("problem" in parsed) return JSON.stringify([parsed.problem.code, parsed.id]);
  const { frame } = parsed;
  if (!("transaction" in frame)) return JSON.stringify(frame);
  const { appends, ...conditions } = frame.transaction;
  const keys = appends.map(({ topic, records }) => [
    topic,
    records.map(({ key, partition }) => [key, partition]),
  ]);
  return JSON.stringify([frame.type, frame.id, keys, conditions]);
}

describe("mutated frames", () => {
  test(
    "are frames or problems that are short and known: bad_frame where a field has not its type, and nowhere else",
    () => {
      const frames = new MutatedFrames(seed);
      const counts = new Counts();
      let json = 0;
      while (counts.total < FRAMES) {
        const text = frames.next();
        const facts = factsOf(text);
        if (facts.isJson) json += 1;
        about(text, () => {
          const parsed = counts.note(() => parseClientFrame(text));
          checkProblem(parsed);
          checkShape(parsed, facts);
          if (counts.total % SAID_AGAIN_EVERY === 0) checkSaidAgain(text, parsed);
        });
      }
      console.log(`${FRAMES} frames, ${json} of them valid JSON: ${counts}`);
      expect(json).toBeGreaterThanOrEqual(FRAMES / 2);
      expect(counts.accepted).toBeGreaterThanOrEqual(FRAMES / 10);
      expect([...counts.byCode.keys()]).toContain("bad_request");
      expect(counts.slowestMs).toBeLessThan(HANG_MS);
    },
    LONG_MS,
  );
});

describe("mutated query strings", () => {
  test(
    "are the subscribe frame that they stand for, or problems that are short and known",
    () => {
      const dice = new Dice(seed);
      const counts = new Counts();
      for (let made = 0; made < QUERIES; made += 1) {
        const text = mutatedQuery(dice);
        about(text, () => {
          const query = new URLSearchParams(text);
          const parsed = counts.note(() => parseSubscribeQuery(query));
          const isAmbiguous = [...query.keys()].some(
            (name) => name !== "topic" && query.getAll(name).length > 1,
          );
          require(!isAmbiguous ||
            (parsed !== undefined && "problem" in parsed), "one parameter is there twice");
          require((parsed === undefined) === (query.size === 0), "only no parameters are no frame");
          if (!parsed) return;
          checkProblem(parsed);
          if ("frame" in parsed)
            require(wordsOf(parseClientFrame(JSON.stringify(parsed.frame))) ===
              wordsOf(parsed), "as a frame it is another one");
        });
      }
      console.log(`${QUERIES} query strings: ${counts}`);
      expect(counts.accepted).toBeGreaterThanOrEqual(QUERIES / 10);
      expect(counts.accepted).toBeLessThanOrEqual((QUERIES * 9) / 10);
      expect(counts.slowestMs).toBeLessThan(HANG_MS);
    },
    LONG_MS,
  );
});
