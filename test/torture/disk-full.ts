// A small tmpfs with the database in it is filled while clients write, and emptied again. The same server goes on.

import { Database } from "bun:sqlite";
import { closeSync, ftruncateSync, mkdirSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { lookOverHttp } from "../life/http-look.ts";
import type { TestServer } from "../support/server.ts";
import type { Bout } from "./bout.ts";
import { WEDGED_MS } from "./file-scenarios.ts";
import { onBrokenOff } from "./last-rites.ts";
import type { Scenario } from "./scenario.ts";
import { sightOfFile } from "./sight.ts";

const DISK_MB = 400;
const CHUNK = Buffer.alloc(64 * 1024);
const PAGE_BYTES = 4_096;
const FULL_MS = 12_000;
/** It tries again after five seconds. */
const UPKEEP_AGAIN_MS = 10_000;
const UPKEEP_FAILED = /event="upkeep failed"/g;

export const diskFull: Scenario = {
  name: "disk-full",
  faults: "times that the disk was full and got room again",
  figure: 30,
  skipped: whyNoTmpfs,
  async run(bout) {
    using disk = new SmallDisk(join(bout.stage.folder.path, "disk"));
    const path = join(disk.path, "t.db");
    let server = await bout.stage.start(path);
    const { pid } = server;
    let failures = 0;
    await bout.begin(sightOfFile(path), { padding: 300 });
    const withoutRestart = Math.max(1, Math.floor(bout.faultsLeft * 0.6));
    while (bout.goesOn) {
      await bout.work(100, 500);
      // While somebody reads an old snapshot the WAL grows, with its index, instead of the file.
      using _ = bout.dice.isLucky(0.4) ? new OldSnapshot(path) : undefined;
      const failuresBefore = countFailures(server);
      const isFull = await fillUnderLoad(bout, disk);
      await expectReads(bout, server);
      const keptFrom = await readLogStarts(server);
      if (countFailures(server) > failuresBefore) failures += 1;
      // The same process has to come through most of them; then it is killed and stopped in the middle of one too.
      if (bout.faults >= withoutRestart) server = await replace(bout, { server, path, disk });
      else if (server.pid !== pid) bout.load.problems.push("the server is not the same any more");
      disk.empty();
      await bout.expectProgress("after room was made", WEDGED_MS);
      await expectRetention(bout, server, keptFrom);
      bout.noteFault(isFull);
    }
    bout.notes.push(`in ${failures} of these times upkeep failed, and the server said so`);
    if (bout.faults > 0 && failures === 0) bout.problem("upkeep never failed, or did not say so");
    const verdict = await bout.end();
    await bout.stage.end(server, "SIGKILL");
    return { ...verdict, notes: [`${withoutRestart} without a restart of the server`, ...verdict.notes] };
  },
};

/** False where no client was told of it. */
async function fillUnderLoad(bout: Bout, disk: SmallDisk): Promise<boolean> {
  const { codes } = bout.load.tally;
  const told = () => codes.get("storage_full") ?? 0;
  const toldBefore = told();
  bout.load.isRushing = true;
  disk.fill(
    (bout.dice.isLucky(0.3) ? bout.dice.between(300, 6_000) : bout.dice.between(0, 300)) * PAGE_BYTES,
  );
  for (const lateAtMs = Date.now() + FULL_MS; told() === toldBefore && Date.now() < lateAtMs; )
    await Bun.sleep(5);
  bout.load.isRushing = false;
  await bout.work(100, 1_200);
  return told() > toldBefore;
}

/** Who reads is not in the way of a full disk. */
async function expectReads(bout: Bout, { url }: TestServer): Promise<void> {
  const response = await fetch(`${url}/v1/topics/orders/partitions/0/records?from=earliest&limit=10`);
  if (!response.ok)
    bout.load.problems.push(`a read while the disk is full: ${response.status} ${await response.text()}`);
}

function countFailures({ logged }: TestServer): number {
  return logged.match(UPKEEP_FAILED)?.length ?? 0;
}

async function readLogStarts({ url }: TestServer): Promise<number> {
  const { retained } = await lookOverHttp(url);
  return retained.reduce((sum, { logStartOffset }) => sum + logStartOffset, 0);
}

/** Upkeep has failed, and tries again. */
async function expectRetention(bout: Bout, server: TestServer, keptFrom: number): Promise<void> {
  const lateAtMs = Date.now() + UPKEEP_AGAIN_MS;
  while ((await readLogStarts(server)) <= keptFrom) {
    if (Date.now() > lateAtMs) {
      bout.load.problems.push(`retention did not go on in ${UPKEEP_AGAIN_MS} ms after room was made`);
      return;
    }
    await Bun.sleep(50); // nothing tells when it has
  }
}

/** Ends the server while the disk is full, and starts it before or after there is room again. */
async function replace(
  bout: Bout,
  { server, path, disk }: { server: TestServer; path: string; disk: SmallDisk },
): Promise<TestServer> {
  const signal = bout.dice.isLucky(0.5) ? "SIGKILL" : "SIGTERM";
  const exitCode = await bout.stage.end(server, signal);
  if (signal === "SIGTERM" && exitCode !== 0)
    bout.load.problems.push(
      `SIGTERM with a full disk: exit ${exitCode}, ${(await server.stderr()).slice(-500)}`,
    );
  try {
    return await bout.stage.start(path);
  } catch (error) {
    // It says what to do.
    if (!/exit 2, .*make room/s.test(String(error))) bout.load.problems.push(String(error));
    bout.notes.push("a start with a full disk was refused, and said so");
    disk.empty();
    return bout.stage.start(path);
  }
}

/** A reader beside the server; `using` lets it go. */
class OldSnapshot implements Disposable {
  readonly #reader: Database;

  constructor(path: string) {
    this.#reader = new Database(path, { readonly: true });
    this.#reader.run("BEGIN");
    this.#reader.prepare("SELECT count(*) FROM topics").get();
  }

  [Symbol.dispose](): void {
    this.#reader.run("COMMIT");
    this.#reader.close();
  }
}

/** `using` unmounts it. */
class SmallDisk implements Disposable {
  readonly path: string;
  readonly #ballast: string;
  readonly #isDone: () => void;

  constructor(path: string) {
    this.path = path;
    this.#ballast = join(path, "ballast");
    mkdirSync(path);
    const { exitCode, stderr } = Bun.spawnSync([
      "mount",
      "-t",
      "tmpfs",
      "-o",
      `size=${DISK_MB}m`,
      "tmpfs",
      path,
    ]);
    this.#isDone = onBrokenOff(() => this.#unmount());
    if (exitCode !== 0) throw new Error(`mount: ${stderr.toString()}`);
  }

  fill(leaveBytes: number): void {
    const file = openSync(this.#ballast, "w");
    try {
      for (;;) writeSync(file, CHUNK);
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
      ftruncateSync(file, Math.max(0, statSync(this.#ballast).size - leaveBytes));
    } finally {
      closeSync(file);
    }
  }

  empty(): void {
    rmSync(this.#ballast, { force: true });
  }

  [Symbol.dispose](): void {
    this.#unmount();
    this.#isDone();
  }

  #unmount(): void {
    Bun.spawnSync(["umount", "--lazy", this.path]); // a server that was not ended in time still has it open
  }
}

function whyNoTmpfs(): string | undefined {
  if (process.platform !== "linux") return "a tmpfs is Linux's";
  if (process.getuid?.() !== 0) return "to mount a tmpfs needs root";
  return Bun.which("mount") ? undefined : "there is no mount";
}
