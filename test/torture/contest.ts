// Three processes contend for one file, each by a path of its own; whoever has it is killed under load.

import { mkdirSync, symlinkSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { REPOSITORY, startServer, type TestServer } from "../support/server.ts";
import type { Bout } from "./bout.ts";
import type { Scenario } from "./scenario.ts";
import { sightOfFile } from "./sight.ts";

const CONTENDER_RETRY_MS = 30;

export const three: Scenario = {
  name: "three",
  faults: "changes of the owner among three processes on one file, by three paths",
  figure: 40,
  async run(bout) {
    const contest = new Contest(bout);
    await contest.begin();
    await bout.begin(sightOfFile(bout.databasePath));
    while (bout.goesOn) {
      await bout.work(50, 500);
      await contest.killOwner();
    }
    contest.isOver = true;
    const verdict = await bout.end();
    for (const server of bout.stage.servers) await bout.stage.end(server, "SIGKILL");
    await contest.ended;
    return { ...verdict, notes: [`${contest.refusals} starts refused with exit code 2`, ...verdict.notes] };
  },
};

/** Three starters, each by a path of its own. Whoever is refused tries again; the owner is killed under load. */
class Contest {
  isOver = false;
  refusals = 0;
  ended: Promise<unknown> = Promise.resolve();
  readonly #bout: Bout;
  #owner: TestServer | undefined;
  #onOwner: (() => void)[] = [];

  constructor(bout: Bout) {
    this.#bout = bout;
  }

  async begin(): Promise<void> {
    const path = this.#bout.databasePath;
    const linked = join(dirname(path), "linked");
    mkdirSync(linked);
    await this.#bout.stage.start(path).then((first) => this.#bout.stage.end(first, "SIGKILL"));
    symlinkSync(path, join(linked, "t.db"));
    const ways = [
      { path, cwd: REPOSITORY },
      { path: join(linked, "t.db"), cwd: REPOSITORY },
      { path: relative(linked, path), cwd: linked },
    ];
    this.ended = Promise.all(ways.map((way) => this.#contend(way)));
    await this.#untilOwned();
  }

  async killOwner(): Promise<void> {
    const owner = await this.#untilOwned();
    const { tally } = this.#bout.load;
    await this.#bout.rush();
    const cutBefore = tally.cut;
    this.#owner = undefined;
    await this.#bout.stage.end(owner, "SIGKILL");
    this.#bout.endRush();
    await this.#untilOwned();
    this.#bout.noteFault(tally.cut > cutBefore);
  }

  async #contend({ path, cwd }: { path: string; cwd: string }): Promise<void> {
    while (!this.isOver) {
      const server = await startServer(path, { mode: "serve", cwd }).catch((error: unknown) =>
        this.#judge(error),
      );
      if (!server) {
        await Bun.sleep(CONTENDER_RETRY_MS); // nothing tells when the owner dies
        continue;
      }
      if (this.#owner) this.#bout.load.problems.push("two servers own one file");
      this.#owner = server;
      this.#bout.stage.welcome(server);
      for (const resolve of this.#onOwner.splice(0)) resolve();
      await server.stderr(); // until it is gone
    }
  }

  #judge(error: unknown): undefined {
    const isRefused = String(error).includes("exit 2") && String(error).includes("another tidemark server");
    if (isRefused) this.refusals += 1;
    else this.#bout.load.problems.push(`a contender: ${String(error)}`);
  }

  async #untilOwned(): Promise<TestServer> {
    while (!this.#owner) await new Promise<void>((resolve) => this.#onOwner.push(resolve));
    return this.#owner;
  }
}
