// deploy/compose/compose.yaml as data, and its sqld: the real one, with the command and the environment that stand there.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Output, REPOSITORY, temporaryFolder } from "../support/server.ts";
import { freePort, SQLD_BINARY } from "../support/sqld.ts";

const serviceSchema = v.object({
  image: v.string(),
  command: v.optional(v.array(v.string()), []),
  build: v.optional(v.object({ context: v.string(), dockerfile: v.string() })),
  environment: v.record(v.string(), v.string()),
  ports: v.optional(v.array(v.string()), []),
  volumes: v.optional(v.array(v.string()), []),
  healthcheck: v.optional(
    v.object({ test: v.optional(v.array(v.string())), disable: v.optional(v.boolean()) }),
  ),
  depends_on: v.optional(v.record(v.string(), v.object({ condition: v.string() })), {}),
  restart: v.string(),
});

const composeSchema = v.object({
  services: v.record(v.string(), serviceSchema),
  volumes: v.record(v.string(), v.null()),
});

export const COMPOSE_FOLDER = join(REPOSITORY, "deploy/compose");
export const composeYaml: unknown = Bun.YAML.parse(
  readFileSync(join(COMPOSE_FOLDER, "compose.yaml"), "utf8"),
);
export const compose = v.parse(composeSchema, composeYaml);

export type Service = v.InferOutput<typeof serviceSchema>;

export function service(name: string): Service {
  const found = compose.services[name];
  if (found === undefined) throw new Error(`compose.yaml has no service ${name}`);
  return found;
}

export interface ComposedSqld extends AsyncDisposable {
  /** An environment of another service, with this sqld where it says "sqld". */
  readonly reach: (environment: Readonly<Record<string, string>>) => Readonly<Record<string, string>>;
  readonly port: number;
  start(): Promise<void>;
  /** As `docker stop` does. */
  stop(): Promise<number>;
}

/** Ports and the folder are this machine's, all else is what the file says. Not started yet. */
export function composedSqld(): ComposedSqld {
  const folder = temporaryFolder();
  const { command, environment, volumes } = service("sqld");
  const ports: Readonly<Record<string, number>> = { 8080: freePort(), 8081: freePort() };
  const mount = volumes[0]?.split(":")[1] ?? "";
  const here = (value: string) =>
    value
      .replace(mount, folder.path)
      .replace(/^0\.0\.0\.0:(808[01])$/, (_, port: string) => `127.0.0.1:${ports[port]}`);
  const env = Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, here(value)]));
  let child: Bun.Subprocess<"ignore", "pipe", "ignore"> | undefined;
  const stop = async () => {
    child?.kill("SIGTERM");
    return (await child?.exited) ?? 0;
  };
  return {
    port: ports[8080] ?? 0,
    // By name: of an address sqld takes what is before the dot for the namespace, as of a name that has one.
    reach: (others) =>
      Object.fromEntries(
        Object.entries(others).map(([name, value]) => [
          name,
          value.replace(/^http:\/\/sqld:(\d+)$/, (_, port: string) => `http://localhost:${ports[port]}`),
        ]),
      ),
    async start() {
      child = Bun.spawn([SQLD_BINARY, ...command.slice(1)], {
        env,
        cwd: folder.path,
        stdin: "ignore",
        stdout: "pipe",
        stderr: "ignore",
      });
      const output = new Output(child.stdout, child);
      if (await output.until(/initializing prometheus metrics/)) return;
      throw new Error(`sqld did not start: ${await output.whole}`);
    },
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
      folder.remove();
    },
  };
}
