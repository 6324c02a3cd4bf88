import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { sendRaw } from "../support/raw-http.ts";
import {
  DENO,
  DENO_PERMISSIONS,
  Output,
  REPOSITORY,
  startServer,
  temporaryFolder,
} from "../support/server.ts";
import { testServerProcess } from "./process-tests.ts";

describe("on Deno", () => testServerProcess("deno"));

/** With the permissions that are given and no others; nobody is there to be asked for more. */
async function runDeno(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { PATH = "", HOME = "" } = process.env;
  const child = Bun.spawn([DENO, ...args], {
    cwd: REPOSITORY,
    env: { PATH, HOME, NO_COLOR: "1", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  return { child, stdout: new Output(child.stdout, child), stderr: new Output(child.stderr, child) };
}

async function refusalOf(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { child, stdout, stderr } = await runDeno(args, env);
  const message = await stderr.whole;
  expect({
    exitCode: await child.exited,
    stdout: await stdout.whole,
    lines: message.split("\n").length,
  }).toEqual({ exitCode: 2, stdout: "", lines: 2 });
  return message;
}

test("on Deno a handshake that is none is told what is wanted, and is no defect", async () => {
  using folder = temporaryFolder();
  await using server = await startServer(join(folder.path, "t.db"), { runtime: "deno" });
  const whole = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: a",
  ];
  for (const left of whole) {
    const head = ["GET /v1/stream HTTP/1.1", ...whole.filter((line) => line !== left)];
    expect({ left, ...(await sendRaw(server.url, head, "")) }).toMatchObject({ left, status: 426 });
  }
  expect(server.logged).toBe("");
});

describe("on Deno, without a permission that it needs, a server says which:", () => {
  const without = (...names: readonly string[]) =>
    DENO_PERMISSIONS.filter((flag) => !names.some((name) => flag === `--allow-${name}`));

  test.each([
    ["env", without("env")],
    ["net", without("net")],
    ["write", without("write")],
    ["ffi", without("ffi")],
    ["sys", without("sys")],
    ["env", []],
  ] as const)("--allow-%s", async (name, permissions) => {
    using folder = temporaryFolder();
    const database = `file:${join(folder.path, "t.db")}`;
    const message = await refusalOf([
      ...["run", ...permissions, "src/runtimes/deno.ts", "serve", "--port", "0", "--db", database],
    ]);
    expect(message).toStartWith("tidemark: ");
    expect(message).toContain(`--allow-${name}`);
  });
});

const GIVEN = { TIDEMARK_WITHOUT_CREDENTIALS: "true" };

describe.each([
  {
    about: "deno serve",
    args: ["serve", "--host", "127.0.0.1", "--port", "0", ...DENO_PERMISSIONS, "deploy/deno/serve.ts"],
    env: {},
    closeCode: 1001, // by Deno, before the server is asked
  },
  {
    about: "what Deno Deploy starts",
    args: ["run", ...DENO_PERMISSIONS, "deploy/deno/deploy.ts"],
    env: { DENO_SERVE_ADDRESS: "tcp:127.0.0.1:0" },
    closeCode: 4000,
  },
])("$about", ({ args, env, closeCode }) => {
  test("serves a database, says so, and ends within its time when it is told to", async () => {
    using folder = temporaryFolder();
    const database = { TURSO_DATABASE_URL: `file:${join(folder.path, "t.db")}` };
    const { child, stdout, stderr } = await runDeno(args, { ...env, ...GIVEN, ...database });
    const isReady = await stdout.until(/^tidemark ready .*\n/m);
    if (!isReady) throw new Error(await stderr.whole);
    const [, url] = stdout.text.match(/url=(\S+)/) ?? [];
    const put = await fetch(`${url}/v1/topics/orders`, { method: "PUT", body: "{}" });
    expect(put.status).toBe(201);
    const socket = new WebSocket(`${url}/v1/stream?topic=orders&group=billing`);
    const closed = new Promise<number>((resolve) => {
      socket.addEventListener("close", ({ code }) => resolve(code));
    });
    await new Promise((resolve) => socket.addEventListener("message", resolve, { once: true }));
    child.kill("SIGINT");
    expect(await closed).toBe(closeCode);
    expect(await child.exited).toBe(0);
  });

  test("refuses to be open to all without being told to", async () => {
    const message = await refusalOf(args, { ...env, TURSO_DATABASE_URL: "http://localhost:1" });
    expect(message).toContain("TIDEMARK_WITHOUT_CREDENTIALS");
  });

  test("refuses a disk that nobody has named", async () => {
    expect(await refusalOf(args, { ...env, ...GIVEN })).toContain("TURSO_DATABASE_URL is not set");
  });
});
