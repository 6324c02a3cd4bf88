// What the README promises of a fresh clone: with Bun alone, or with Node and npm alone, one command does all the
// set-up itself. The home is empty, and PATH has nothing but what is named here.

import { afterAll, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describeLong } from "../support/long.ts";
import { Output, REPOSITORY, temporaryFolder } from "../support/server.ts";
import { StreamClient } from "../support/stream-client.ts";

const TEST_TIMEOUT_MS = 300_000;
const FIRST_SCREEN = "orders.ts";
/** The line, and three to paste behind it. */
const ANNOUNCED = /^tidemark ready url=(\S+) db=\S+ pid=\d+\n(?:.+\n){3}/m;

interface Machine {
  readonly name: string;
  /** All that is on PATH. */
  readonly programs: Readonly<Record<string, string | null>>;
  readonly bun: readonly string[];
}

const MACHINES: readonly Machine[] = [
  {
    name: "Node and npm",
    // npm itself cannot run a package's install script without sh.
    programs: { node: Bun.which("node"), npm: Bun.which("npm"), npx: Bun.which("npx"), sh: Bun.which("sh") },
    bun: ["npx", "-y", "bun@1.4.4"],
  },
  { name: "Bun", programs: { bun: process.execPath }, bun: ["bun"] },
];

/** How this machine reaches the registry: nothing else is handed on. */
const NETWORK_VARIABLES = [
  "NODE_EXTRA_CA_CERTS",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "NO_PROXY",
  "http_proxy",
  "https_proxy",
  "no_proxy",
];

const folder = temporaryFolder();
afterAll(() => folder.remove());

describeLong("a fresh clone", "installs from the npm registry", () => {
  for (const machine of MACHINES) {
    const { name, programs, bun } = machine;
    const isThere = Object.values(programs).every((path) => path !== null);

    test.skipIf(!isThere)(
      `runs with nothing but ${name}`,
      async () => {
        const home = join(folder.path, name.replaceAll(" ", "-"));
        const clone = join(home, "clone");
        makeMachine(home, programs);
        cloneInto(clone);
        const run = (...args: readonly string[]) =>
          spawnIn(clone, { home, command: [...bun, "run", ...args] });

        const dev = run("dev", "--port", "0");
        const isReady = await dev.stdout.until(ANNOUNCED);
        if (!isReady) throw new Error(`dev: ${await dev.stderr.whole}`);
        expect(dev.stdout.text.replace(ANNOUNCED, "|")).toEndWith("|");
        const [, url = ""] = dev.stdout.text.match(ANNOUNCED) ?? [];
        await produceAndConsume(url);
        await runFirstScreen(clone, {
          url,
          start: () => spawnIn(clone, { home, command: [...bun, FIRST_SCREEN] }),
        });
        process.kill(-dev.child.pid, "SIGTERM"); // the group: a signal to npx alone would leave the server running
        await dev.stdout.whole; // everyone who could write to it is gone
        expect(await fetch(url).catch(() => "nobody there")).toBe("nobody there");
        expect(statusOf(clone)).toBe("");

        const tests = run("test", "test/core");
        const report = await tests.stderr.whole;
        expect({ exitCode: await tests.child.exited, end: report.slice(-2_000) }).toMatchObject({
          exitCode: 0,
        });
        expect(report).toMatch(/\b[1-9]\d* pass\n/);
        expect(report).toMatch(/\b0 fail\n/);
        expect(statusOf(clone)).toBe("");
      },
      TEST_TIMEOUT_MS,
    );
  }
});

function makeMachine(home: string, programs: Machine["programs"]): void {
  mkdirSync(join(home, "bin"), { recursive: true });
  for (const [name, path] of Object.entries(programs)) symlinkSync(path ?? "", join(home, "bin", name));
}

function cloneInto(clone: string): void {
  git(["clone", "--quiet", REPOSITORY, clone]);
}

/** What the commands have left behind that is not ignored. */
function statusOf(clone: string): string {
  return git(["-C", clone, "status", "--porcelain"]);
}

function git(args: readonly string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([Bun.which("git") ?? "git", ...args]);
  if (exitCode !== 0) throw new Error(`git ${args.join(" ")}: ${stderr.toString()}`);
  return stdout.toString();
}

function spawnIn(cwd: string, { home, command }: { home: string; command: readonly string[] }) {
  const [program = "", ...args] = command;
  const network = NETWORK_VARIABLES.map((name) => [name, process.env[name]]).filter(
    ([, value]) => value !== undefined,
  );
  const child = Bun.spawn([join(home, "bin", program), ...args], {
    cwd,
    env: { ...Object.fromEntries(network), HOME: home, PATH: join(home, "bin") },
    stdout: "pipe",
    stderr: "pipe",
    detached: true, // leads a process group of its own
  });
  return { child, stdout: new Output(child.stdout, child), stderr: new Output(child.stderr, child) };
}

/** What the README's first screen has as `orders.ts`, as it is printed but for the port. */
async function runFirstScreen(
  clone: string,
  { url, start }: { url: string; start: () => ReturnType<typeof spawnIn> },
): Promise<void> {
  const readme = readFileSync(join(clone, "README.md"), "utf8");
  const [, program = ""] = readme.match(/write\nthis to `orders\.ts`.*?```ts endless\n(.*?)```/s) ?? [];
  const path = join(clone, FIRST_SCREEN);
  await Bun.write(path, program.replace("http://127.0.0.1:4500", url));
  const { child, stdout, stderr } = start();
  if (!(await stdout.until(/\n/))) throw new Error(`the first screen: ${await stderr.whole}`);
  process.kill(-child.pid, "SIGKILL");
  rmSync(path);
  expect(stdout.text).toBe("0 0 ada {\n  total: 12.5,\n}\n");
}

async function produceAndConsume(url: string): Promise<void> {
  const body = '{"records":[{"key":"u1","value":{"hello":"world"}}]}';
  const response = await fetch(`${url}/v1/topics/demo/records`, { method: "POST", body });
  expect(await response.json()).toEqual({ runs: [{ partition: 0, offset: 0, count: 1 }] });
  const client = await StreamClient.open(`${url.replace("http", "ws")}/v1/stream?topic=demo&group=demo`);
  await client.expect("subscribed");
  await client.expect("assigned");
  const { records, topic, partition, generation, next } = await client.expect("records");
  expect(records).toMatchObject([{ offset: 0, key: "u1", value: { hello: "world" } }]);
  client.send({ type: "ack", offsets: [{ topic, partition, generation, offset: next }] });
  expect((await client.expect("acked")).offsets).toEqual([{ topic, partition, offset: 1 }]);
  await client.close();
}
