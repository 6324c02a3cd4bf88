// What is done to a server on a file of its own.

import { join } from "node:path";
import { Output, REPOSITORY, type TestServer } from "../support/server.ts";
import { birth, killStart } from "./birth.ts";
import type { Bout } from "./bout.ts";
import { three } from "./contest.ts";
import type { Scenario } from "./scenario.ts";
import { sightOfFile } from "./sight.ts";

/** With nothing in the way: a hundred times what a send needs. */
export const WEDGED_MS = 5_000;

const kill: Scenario = {
  name: "kill",
  faults: "kill -9 of the server while work was unanswered",
  figure: 200,
  async run(bout) {
    let server = await bout.stage.start(bout.databasePath);
    // Larger records: some kills come while the WAL is being put into the file.
    await bout.begin(sightOfFile(bout.databasePath), { padding: bout.dice.between(0, 1) * 600 });
    while (bout.goesOn) {
      // Upkeep looks at what it is to do when a server starts, and again after a quarter of a second.
      await bout.work(0, bout.dice.isLucky(0.3) ? 700 : 250);
      server = await killUnderLoad(bout, server);
    }
    await bout.expectProgress("after the last restart", WEDGED_MS);
    return bout.end();
  },
};

/** Counts only where a request was left without its answer. */
async function killUnderLoad(bout: Bout, server: TestServer): Promise<TestServer> {
  const { tally } = bout.load;
  await bout.rush();
  const cutBefore = tally.cut;
  await bout.stage.end(server, "SIGKILL");
  bout.endRush();
  // Who looks puts the WAL in order, which otherwise the next server does.
  if (bout.dice.isLucky(0.5)) await bout.lookAtUpkeep();
  // Now and then starts are killed too, wherever they are by then.
  for (let starts = bout.dice.between(-6, 2); starts > 0; starts -= 1)
    await killStart(bout, bout.databasePath);
  const restarted = await bout.stage.start(bout.databasePath);
  bout.noteFault(tally.cut > cutBefore);
  return restarted;
}

const stop: Scenario = {
  name: "stop",
  faults: "SIGSTOP and SIGCONT, SIGTERM and a restart, or kill -9 in the middle of a SIGTERM",
  figure: 40,
  async run(bout) {
    let server = await bout.stage.start(bout.databasePath);
    await bout.begin(sightOfFile(bout.databasePath));
    while (bout.goesOn) {
      await bout.work(50, 400);
      await bout.rush();
      if (bout.dice.isLucky(0.5)) await standStill(bout, server);
      else server = await restart(bout, server);
      bout.noteFault();
      bout.endRush();
    }
    return bout.end();
  },
};

/** Now and then for longer than a session timeout. */
async function standStill(bout: Bout, server: TestServer): Promise<void> {
  process.kill(server.pid, "SIGSTOP");
  await (bout.dice.isLucky(0.1) ? bout.work(6_500, 8_000) : bout.work(50, 1_500));
  process.kill(server.pid, "SIGCONT");
  await bout.expectProgress("after a stand still", WEDGED_MS);
}

async function restart(bout: Bout, server: TestServer): Promise<TestServer> {
  const ended = bout.stage.end(server, "SIGTERM");
  const isCut = bout.dice.isLucky(0.4);
  if (isCut) {
    await bout.work(0, 300);
    await server.kill("SIGKILL");
  }
  const exitCode = await ended;
  if (exitCode !== 0 && !isCut)
    bout.load.problems.push(`SIGTERM: exit ${exitCode}, ${(await server.stderr()).slice(-500)}`);
  return bout.stage.start(bout.databasePath);
}

const LONG_HOLD_MS = 10_000;
/** Longer than a write waits. */
const TOO_LONG_HOLD_MS = 16_500;

const lock: Scenario = {
  name: "lock",
  faults: "times that another program held the write lock, every fifth for 10 s, one for 16.5 s",
  figure: 10,
  async run(bout) {
    let server = await bout.stage.start(bout.databasePath);
    await bout.begin(sightOfFile(bout.databasePath));
    const holder = new LockHolder(bout.databasePath);
    for (let turn = 0; bout.goesOn; turn += 1) {
      await bout.work(200, 800);
      const shortMs = bout.dice.between(300, 2_500);
      const released = holder.hold(turn % 5 === 0 ? LONG_HOLD_MS : turn === 8 ? TOO_LONG_HOLD_MS : shortMs);
      await holder.taken();
      if (turn % 5 === 2)
        server = await bout.stage.end(server, "SIGKILL").then(() => bout.stage.start(bout.databasePath));
      await expectHealth(bout, server);
      await released;
      await bout.expectProgress("after the lock was let go", WEDGED_MS);
      bout.noteFault();
    }
    await holder.end();
    return bout.end();
  },
};

/** A server that waits for the lock, instead of asking again, does not answer. */
async function expectHealth(bout: Bout, { url }: TestServer): Promise<void> {
  const { ok } = await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(1_000) });
  if (!ok) bout.load.problems.push("blocked: the server is not alive while the lock is held");
}

class LockHolder {
  readonly #child;
  readonly #output: Output;
  #holds = 0;

  constructor(path: string) {
    const script = join(REPOSITORY, "test/support/lock-holder.ts");
    const pipes = { stdin: "pipe", stdout: "pipe", stderr: "inherit" } as const;
    this.#child = Bun.spawn([process.execPath, script, path], pipes);
    this.#output = new Output(this.#child.stdout, this.#child);
  }

  /** Resolves when it has let go. */
  async hold(ms: number): Promise<void> {
    const hold = this.#holds;
    this.#holds += 1;
    this.#child.stdin.write(`${ms}\n`);
    await this.#child.stdin.flush();
    await this.#until(`released ${hold}`);
  }

  /** By the last hold. */
  taken(): Promise<void> {
    return this.#until(`taken ${this.#holds - 1}`);
  }

  async end(): Promise<void> {
    await this.#child.stdin.end();
    await this.#child.exited;
  }

  async #until(line: string): Promise<void> {
    if (!(await this.#output.until(new RegExp(`^${line}$`, "m"))))
      throw new Error(`the lock holder ended before "${line}"`);
  }
}

export const FILE_SCENARIOS: readonly Scenario[] = [kill, birth, stop, lock, three];
