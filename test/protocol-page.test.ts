import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { parseClientFrame, parseSubscribeQuery } from "../src/core/client-frame.ts";
import { CLOSE_CODES, ERROR_CODES, type ErrorCode } from "../src/protocol/codes.ts";
import * as limits from "../src/protocol/limits.ts";
import { PROTOCOL_REVISION } from "../src/protocol/revision.ts";
import { CLIENT_FRAME_SCHEMAS } from "../src/protocol/schemas/client.ts";
import {
  committedOffsetsAnswerSchema,
  deleteRecordsAnswerSchema,
  fetchAnswerSchema,
  groupDescriptionSchema,
  groupListSchema,
  livenessSchema,
  produceAnswerSchema,
  producerSchema,
  readinessSchema,
  resetAnswerSchema,
  SERVER_FRAME_SCHEMAS,
  topicDescriptionSchema,
  topicListSchema,
  transactAnswerSchema,
} from "../src/protocol/schemas/server.ts";

const PAGE = readFileSync(join(import.meta.dir, "../PROTOCOL.md"), "utf8");

interface Example {
  readonly line: number;
  readonly direction: "toServer" | "toClient" | "overHttp";
  readonly text: string;
  /** The headings above it. */
  readonly section: string;
  readonly heading: string;
}

/** Every line of a json block and of a conversation stands for one frame, in the section HTTP for one answer. */
function readExamples(page: string): readonly Example[] {
  const examples: Example[] = [];
  let section = "";
  let heading = "";
  let fence: string | undefined;
  for (const [index, text] of page.split("\n").entries()) {
    if (text.startsWith("```")) fence = fence === undefined ? text.slice(3) : undefined;
    else if (fence === undefined && text.startsWith("## ")) section = heading = text.slice(3);
    else if (fence === undefined && text.startsWith("### ")) heading = text.slice(4);
    else if (fence !== undefined) {
      const at = { line: index + 1, section, heading };
      const answer = section === "HTTP" ? /^200 (.*)$/.exec(text)?.[1] : undefined;
      const arrow = /^([→←]) (.*)$/.exec(text);
      if (answer !== undefined) {
        examples.push({ ...at, direction: "overHttp", text: answer });
      } else if (arrow?.[2]) {
        examples.push({ ...at, direction: arrow[1] === "→" ? "toServer" : "toClient", text: arrow[2] });
      } else {
        const direction = section === "From the client to the server" ? "toServer" : "toClient";
        examples.push({ ...at, direction, text });
      }
    }
  }
  return examples;
}

const EXAMPLES = readExamples(PAGE);

const HTTP_ANSWER_SCHEMAS = {
  topicListSchema,
  topicDescriptionSchema,
  produceAnswerSchema,
  transactAnswerSchema,
  producerSchema,
  fetchAnswerSchema,
  deleteRecordsAnswerSchema,
  groupListSchema,
  groupDescriptionSchema,
  committedOffsetsAnswerSchema,
  resetAnswerSchema,
  readinessSchema,
  livenessSchema,
};

function httpAnswersLike(text: string): readonly string[] {
  const answer: unknown = JSON.parse(text);
  return Object.entries(HTTP_ANSWER_SCHEMAS).flatMap(([name, schema]) =>
    v.is(schema, answer) ? [name] : [],
  );
}

function refusalOf({ direction, text }: Example): string | undefined {
  if (direction === "toServer") {
    const parsed = parseClientFrame(text);
    return "problem" in parsed ? parsed.problem.message : undefined;
  }
  if (direction === "overHttp")
    return httpAnswersLike(text).length > 0 ? undefined : "no answer of the server";
  const frame: unknown = JSON.parse(text);
  const type = String((frame as { type?: unknown }).type); // any JSON: what has no type is found below
  if (!Object.hasOwn(SERVER_FRAME_SCHEMAS, type)) return `no frame of the type ${type}`;
  const result = v.safeParse(SERVER_FRAME_SCHEMAS[type as keyof typeof SERVER_FRAME_SCHEMAS], frame);
  return result.success ? undefined : JSON.stringify(v.flatten(result.issues));
}

function typeOf({ text }: Example): string {
  return JSON.parse(text).type;
}

describe("PROTOCOL.md", () => {
  test("has no fenced block but frames, conversations and answers, and each line of them is one", () => {
    expect(EXAMPLES.length).toBeGreaterThan(60);
    for (const example of EXAMPLES) {
      const where = `line ${example.line}: ${example.text.slice(0, 60)}`;
      expect([where, refusalOf(example)]).toEqual([where, undefined]);
    }
  });

  test("shows every answer over HTTP", () => {
    const shown = EXAMPLES.filter(({ direction }) => direction === "overHttp");
    const names = shown.flatMap(({ text }) => httpAnswersLike(text));
    expect(new Set(names)).toEqual(new Set(Object.keys(HTTP_ANSWER_SCHEMAS)));
  });

  test("spells every client frame's query form in a way that the server takes", () => {
    const queries = [...PAGE.matchAll(/`\/v1\/stream\?([^`]+)`/g)].map(([, query]) => query);
    expect(queries.length).toBeGreaterThan(1);
    for (const query of queries)
      expect(parseSubscribeQuery(new URLSearchParams(query))).toHaveProperty("frame");
  });

  test.each(Object.keys(CLIENT_FRAME_SCHEMAS))(
    "shows the frame %s to the server under its own heading",
    (type) => {
      const shown = EXAMPLES.filter(
        (example) => example.direction === "toServer" && example.heading.split(", ").includes(type),
      );
      expect(shown.map(typeOf)).toContain(type);
    },
  );

  test.each(Object.keys(SERVER_FRAME_SCHEMAS))(
    "shows the frame %s to the client under its own heading",
    (type) => {
      const shown = EXAMPLES.filter(
        (example) =>
          example.direction === "toClient" &&
          example.heading === type &&
          example.section.startsWith("From the server"),
      );
      expect(shown.map(typeOf)).toContain(type);
    },
  );

  test.each(Object.keys(ERROR_CODES))(
    "shows the error code %s in a frame and in the table, as it is",
    (code) => {
      const frames = EXAMPLES.map(({ text }) => JSON.parse(text)).filter((frame) => frame.type === "error");
      const { status, retriable } = ERROR_CODES[code as ErrorCode]; // a key of it
      expect(frames.filter((frame) => frame.code === code).map((frame) => frame.retriable)).toContain(
        retriable,
      );
      for (const frame of frames.filter((each) => each.code === code))
        expect(frame.retriable).toBe(retriable);
      expect(PAGE).toContain(`| \`${code}\` | ${status} | ${retriable ? "yes" : ""}`);
    },
  );

  test.each(Object.values(CLOSE_CODES))("names the close code %i", (code) => {
    expect(PAGE).toContain(`| ${code} |`);
  });

  test("names the limits as they are", () => {
    const table = PAGE.slice(PAGE.indexOf("\n## Limits"), PAGE.indexOf("\n## Not built yet"));
    const named = [
      limits.RECORD_BYTES_MAX,
      limits.KEY_BYTES_MAX,
      limits.HEADERS_MAX,
      limits.HEADERS_BYTES_MAX,
      limits.METADATA_BYTES_MAX,
      limits.JSON_DEPTH_MAX,
      limits.BATCH_RECORDS_MAX,
      limits.BATCH_BYTES_MAX,
      limits.CLIENT_FRAME_BYTES_MAX,
      limits.CHUNK_RECORDS_MAX,
      limits.CHUNK_BYTES_MAX,
      limits.TOPICS_MAX,
      limits.TOPIC_PARTITIONS_MAX,
      limits.SUBSCRIPTIONS_PER_SOCKET_MAX,
      limits.TOPICS_PER_SUBSCRIPTION_MAX,
      limits.PARTITIONS_PER_SUBSCRIPTION_MAX,
      limits.GROUP_BYTES_MAX,
      limits.ACK_ENTRIES_MAX,
      limits.PARTITIONS_PER_RESET_MAX,
      limits.ACK_ENTRIES_WAITING_MAX,
      limits.SEEKS_WAITING_MAX,
      limits.SOCKET_ANSWERS_BYTES_MAX,
      limits.PENDING_WRITE_BYTES_MAX,
      limits.WRITE_DEADLINE_MS,
      limits.REVOKE_DEADLINE_MS,
      limits.PROCESS_LEASE_MS,
      limits.TRANSACTION_PARTITIONS_MAX,
      limits.EXPECTATIONS_MAX,
      limits.PRODUCER_ANSWERS_KEPT,
      limits.PRODUCER_IDLE_MAX_MS,
    ];
    const numbers = new Set(
      [...table.matchAll(/\d[\d,]*/g)].map(([text]) => Number(text.replaceAll(",", ""))),
    );
    expect(named.filter((limit) => !numbers.has(limit))).toEqual([]);
  });

  test("names the revision, and says what it brought", () => {
    expect(PAGE).toContain(`protocol revision ${PROTOCOL_REVISION}.`);
    expect(PAGE.slice(PAGE.indexOf("\n## Revisions"))).toContain(`\n${PROTOCOL_REVISION}. `);
  });
});
