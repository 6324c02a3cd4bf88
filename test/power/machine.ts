// What runs on the disk: a server with its file, or a server whose sqld has the disk.

import { existsSync, mkdirSync, watch } from "node:fs";
import { join } from "node:path";
import { Output, spawnServer } from "../support/server.ts";
import { type Sqld, startSqld } from "../support/sqld.ts";

export type Place = "file" | "sqld";

export interface MachineOptions {
  /** Of the disk, empty or as the power cut has left it. */
  readonly folder: string;
  readonly place: Place;
  /** Another copy of the sources. */
  readonly repository?: string | undefined;
}

/** The first thing that a server does to an empty disk. */
const FIRST_FOLDER = "made";

/** `await using` kills it. */
export class Machine implements AsyncDisposable {
  readonly #server: ReturnType<typeof spawnServer>;
  readonly #stdout: Output;
  readonly #stderr: Output;
  readonly #sqld: Sqld | undefined;
  readonly #databasePath: string;
  readonly #folder: string;

  private constructor(options: MachineOptions, sqld: Sqld | undefined) {
    const { folder, place, repository } = options;
    this.#sqld = sqld;
    this.#folder = folder;
    // The server makes these folders itself: they too must be there when the power is back.
    const file = join(folder, FIRST_FOLDER, "by/the/server/tidemark.db");
    this.#databasePath = place === "file" ? file : join(folder, "sqld/sqld/dbs/default/data");
    this.#server = spawnServer(sqld?.url ?? file, repository === undefined ? {} : { repository });
    this.#stdout = new Output(this.#server.stdout, this.#server);
    this.#stderr = new Output(this.#server.stderr, this.#server);
  }

  /** The server has been started, and may still be far from ready. */
  static async start(options: MachineOptions): Promise<Machine> {
    if (options.place === "file") return new Machine(options, undefined);
    const folder = join(options.folder, "sqld");
    mkdirSync(folder, { recursive: true });
    const sqld = await startSqld({ folder });
    // sqld does not fsync the file that says its version, and after a power cut does not start with an empty one. The
    // kernel has written it within a minute of the first start: this is that minute.
    Bun.spawnSync(["sync", "--file-system", folder]);
    return new Machine(options, sqld);
  }

  /** Its URL, when it is ready. Rejects with what it wrote where it ends before. */
  async ready(): Promise<string> {
    if (await this.#stdout.until(/^tidemark ready .*\n/m))
      return /url=(\S+)/.exec(this.#stdout.text)?.[1] ?? "";
    const { exitCode, signalCode } = this.#server;
    throw new Error(
      `the server did not start: ${signalCode ?? `exit ${exitCode}`}, ${await this.#stderr.whole}`,
    );
  }

  /** The server has begun to make its database. */
  async hasBegun(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const watcher = watch(this.#folder, () => resolve());
    if (existsSync(join(this.#folder, FIRST_FOLDER))) resolve();
    await promise.finally(() => watcher.close());
  }

  /** Rejects when the server ends by itself. */
  async untilItEnds(): Promise<never> {
    await this.#server.exited;
    throw new Error(`the server ended: ${await this.#stderr.whole}`);
  }

  /** As the power goes: nobody is asked. The server first, so that it tells nobody what it thinks of its database. */
  kill(): void {
    this.#server.kill("SIGKILL");
    if (this.#sqld) process.kill(this.#sqld.pid, "SIGKILL");
  }

  async stop(): Promise<{ readonly databasePath: string }> {
    this.#server.kill("SIGTERM");
    const exitCode = await this.#server.exited;
    if (exitCode !== 0)
      throw new Error(`the server did not stop: exit ${exitCode}, ${await this.#stderr.whole}`);
    await this.#sqld?.signal("SIGTERM");
    return { databasePath: this.#databasePath };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.kill("SIGKILL");
    await this.#server.exited;
    await this.#sqld?.[Symbol.asyncDispose]();
  }
}
