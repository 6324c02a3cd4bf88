// deploy/fly/fly.toml: what it promises, that it agrees with the image, and that the server runs on what it sets.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { REPOSITORY, temporaryFolder } from "../support/server.ts";
import { lastValue, readStages } from "./dockerfile.ts";
import { buildImage, DOCKERFILE, type Image, LISTENING_HERE, startImage } from "./image.ts";

setDefaultTimeout(60_000); // where the machine has much else to do

const STOP_S = 5;
const flyFolder = join(REPOSITORY, "deploy/fly");
const seconds = v.pipe(
  v.string(),
  v.regex(/^\d+s$/),
  v.transform((text) => Number.parseInt(text, 10)),
);

/** Strict: a table that is not named here, a service above all, is refused. */
const flySchema = v.strictObject({
  app: v.string(),
  primary_region: v.string(),
  kill_signal: v.string(),
  kill_timeout: seconds,
  build: v.strictObject({ dockerfile: v.string() }),
  env: v.record(v.string(), v.string()),
  mounts: v.array(v.strictObject({ source: v.string(), destination: v.string(), initial_size: v.string() })),
  checks: v.record(
    v.string(),
    v.strictObject({
      type: v.string(),
      port: v.number(),
      method: v.string(),
      path: v.string(),
      grace_period: seconds,
      interval: seconds,
      timeout: seconds,
    }),
  ),
  restart: v.array(v.strictObject({ policy: v.string() })),
  deploy: v.strictObject({ strategy: v.string() }),
  vm: v.array(v.strictObject({ size: v.string(), memory: v.string() })),
});

const toml: unknown = Bun.TOML.parse(readFileSync(join(flyFolder, "fly.toml"), "utf8"));
const fly = v.parse(flySchema, toml);
const stage = readStages(DOCKERFILE).at(-1);
if (stage === undefined) throw new Error("the Dockerfile has no FROM");

describe("fly.toml", () => {
  test("builds the same image", () => {
    expect(join(flyFolder, fly.build.dockerfile)).toBe(join(REPOSITORY, "deploy/docker/Dockerfile"));
    expect(existsSync(join(flyFolder, fly.build.dockerfile))).toBe(true);
  });

  test("has no service: no public address, and no proxy that stops the machine with its consumers", () => {
    for (const service of [{ http_service: {} }, { services: [] }])
      expect(v.is(flySchema, { ...Object(toml), ...service })).toBe(false);
    expect(v.is(flySchema, toml)).toBe(true);
  });

  test("keeps the database on the one volume, where the image has its own", () => {
    const path = fly.env.TURSO_DATABASE_URL?.replace("file:", "") ?? "";
    expect(fly.mounts.map(({ destination }) => destination)).toEqual([dirname(path)]);
    expect(lastValue(stage, "volume")).toBe(dirname(path));
    expect(fly.deploy.strategy).toBe("rolling"); // the others want a second machine beside the first
  });

  test("asks /readyz on the port of the image", () => {
    const port = Number(lastValue(stage, "expose"));
    expect(Object.values(fly.checks)).toMatchObject([{ type: "http", method: "get", path: "/readyz", port }]);
    expect(fly.env.PORT).toBe(String(port));
  });

  test("gives the server the time that it takes to stop, and starts it again whatever it ended with", () => {
    expect(fly.kill_signal).toBe("SIGTERM");
    expect(fly.kill_timeout).toBeGreaterThanOrEqual(STOP_S);
    expect(fly.restart).toEqual([{ policy: "always" }]);
  });

  test("listens where the private network reaches it, and says who may write", () => {
    expect(fly.env).toMatchObject({ HOST: "::", TIDEMARK_WITHOUT_CREDENTIALS: "true" });
    expect(fly.env.TIDEMARK_ALLOW_ORIGIN).toBe(`http://${fly.app}.internal:${fly.env.PORT}`);
  });
});

describe("the server on Fly", () => {
  let image: Image;
  beforeAll(async () => {
    image = await buildImage();
  });
  afterAll(() => image[Symbol.dispose]());

  test("is ready, is reached by its name in the private network, and ends by the kill signal", async () => {
    using data = temporaryFolder();
    const TURSO_DATABASE_URL = `file:${join(data.path, "tidemark.db")}`;
    await using server = await startImage(image, { ...fly.env, TURSO_DATABASE_URL, ...LISTENING_HERE });
    const [check] = Object.values(fly.checks);
    expect((await fetch(server.url + check?.path)).status).toBe(200);
    const ask = async (host: string) =>
      (await fetch(`${server.url}/v1/topics`, { headers: { host } })).status;
    expect([await ask(`${fly.app}.internal:4500`), await ask("127.0.0.1:4500")]).toEqual([200, 200]);
    expect(await ask("another.internal:4500")).toBe(403);
    process.kill(server.pid, fly.kill_signal);
    expect(await server.child.exited).toBe(0);
  });
});
