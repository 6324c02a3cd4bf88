// The server in workerd, over a real sqld: what it weighs, what it refuses to start with, what is its own. What takes a
// quarter of a minute: test/long/workers.test.ts. What it has to do like any other: test/conformance/.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { buildWorker, kibibytesOf } from "../../scripts/build-worker.ts";
import { HttpClient } from "../support/http-client.ts";
import { temporaryFolder } from "../support/server.ts";
import { HAS_SQLD, SQLD_SKIPPED } from "../support/sqld.ts";
import { startWorker, type WorkerOptions } from "../support/worker.ts";

setDefaultTimeout(60_000); // wrangler takes seconds to start

const OPEN = { TIDEMARK_WITHOUT_CREDENTIALS: "true" };
const AT_START_KIB_MAX = 100;
const IN_ALL_KIB_MAX = 150;

if (!HAS_SQLD) console.warn(`the server in workerd: ${SQLD_SKIPPED}`);

test("a Worker starts with 100 KiB at most, and has 150 KiB in all", async () => {
  using folder = temporaryFolder();
  const modules = await buildWorker(folder.path);
  const atStart = kibibytesOf(modules.filter(({ isAtStart }) => isAtStart));
  expect(atStart).toBeGreaterThan(50); // it is the server that is measured
  expect(atStart).toBeLessThanOrEqual(AT_START_KIB_MAX);
  expect(kibibytesOf(modules)).toBeLessThanOrEqual(IN_ALL_KIB_MAX);
});

describe.skipIf(!HAS_SQLD)("a Worker", () => {
  async function answerOf(options: WorkerOptions) {
    await using worker = await startWorker(options);
    const http = new HttpClient(worker);
    expect((await http.call("GET", "/healthz")).body).toEqual({ status: "alive" });
    const { status, body } = await http.call("GET", "/readyz");
    return { status, ...body };
  }

  test.each<[string, WorkerOptions, string]>([
    [
      "without its binding",
      { variables: OPEN, config: { durable_objects: { bindings: [] }, migrations: [] } },
      "binding TIDEMARK",
    ],
    [
      "with a file",
      { variables: { ...OPEN, TURSO_DATABASE_URL: "file:a.db" } },
      "file:a.db: a Worker has no disk",
    ],
  ])("%s answers every request with what is missing", async (_, options, detail) => {
    expect(await answerOf(options)).toEqual({
      status: 500,
      code: "internal",
      retriable: false,
      detail: expect.stringContaining(detail),
    });
  });
});
