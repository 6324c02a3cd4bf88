import { expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { findViolations } from "./support/architecture.ts";
import { parseTypeScript, type SourceText } from "./support/parse-typescript.ts";

const ROOT = join(import.meta.dir, "..");
const CODE_FILE = /\.[cm]?[jt]sx?$/;
const NOT_OURS = /\/(node_modules|dist)\//;

async function readSources(): Promise<readonly SourceText[]> {
  const folders = (await readdir(ROOT)).filter((name) => name === "src" || name === "clients");
  const paths = await Promise.all(
    folders.map(async (folder) =>
      (await readdir(join(ROOT, folder), { recursive: true })).map((name) => `${folder}/${name}`),
    ),
  );
  const codePaths = paths.flat().filter((path) => CODE_FILE.test(path) && !NOT_OURS.test(path));
  return Promise.all(
    codePaths.sort().map(async (path) => ({ path, text: await Bun.file(join(ROOT, path)).text() })),
  );
}

async function violationsOf(sources: readonly SourceText[]): Promise<readonly (readonly string[])[]> {
  const trees = await parseTypeScript(sources);
  return trees.map((tree, index) => findViolations(sources[index]?.path ?? "", tree));
}

test("every file under src/ and clients/ keeps to the layout", async () => {
  const sources = await readSources();
  expect(sources.map(({ path }) => path)).toContain("src/protocol/limits.ts");
  expect((await violationsOf(sources)).flat()).toEqual([]);
});

test("a source that does not parse is an error, not a pass", async () => {
  // Not `.rejects`: Bun then waits inside expect(), and an answer from the compiler's process can take 20 s to be seen.
  const outcome = await violationsOf([{ path: "src/core/half.ts", text: "export const = 1;" }]).catch(String);
  expect(outcome).toContain("src/core/half.ts is not TypeScript");
});

// ── what must be refused: path, source, the one message ──────────────────────────────────────────────────

type Fixture = readonly [path: string, text: string, message: string];

const PROTOCOL_ALLOWED = "src/protocol may import no other folder and no package";
const SCHEMAS_ALLOWED = "src/protocol/schemas may import src/protocol and valibot";
const CORE_ALLOWED = "src/core may import src/protocol, src/protocol/schemas and @hyperjump/json-schema";
const STORE_ALLOWED =
  "src/store may import src/core, src/protocol, src/protocol/schemas, migrations/*.sql and @libsql/client, libsql, valibot";
const STREAM_ALLOWED =
  "src/stream may import src/store, src/core, src/protocol, src/protocol/schemas and no package";
const HTTP_ALLOWED =
  "src/http may import src/stream, src/store, src/core, src/protocol, src/protocol/schemas and hono, hono-openapi, valibot, @valibot/to-json-schema";
const RUNTIMES_ALLOWED =
  "src/runtimes may import src/http, src/stream, src/store, src/core, src/protocol, src/protocol/schemas " +
  "and hono, @libsql/client, valibot, node:";
const CONSOLE_ALLOWED =
  "src/console may import clients/typescript, src/protocol, src/protocol/schemas and no package";
const CLI_ALLOWED =
  "src/cli may import clients/typescript, src/runtimes, src/protocol, src/protocol/schemas and node:";
const CLIENT_ALLOWED =
  "clients/typescript may import clients/typescript/platform, src/protocol and no package";
const PLATFORM_ALLOWED = "clients/typescript/platform may import no other folder and no package";

const formsOfImport = [
  `import { x } from "../store/x.ts";`,
  `import "../store/x.ts";`,
  `import type { X } from "../store/x.ts";`,
  `import { type X } from "../store/x.ts";`,
  `import * as x from "../store/x.ts";`,
  `export { x } from "../store/x.ts";`,
  `export type { X } from "../store/x.ts";`,
  `export * from "../store/x.ts";`,
  `export * as x from "../store/x.ts";`,
  `await import("../store/x.ts");`,
  "await import(`../store/x.ts`);",
  `type X = import("../store/x.ts").X;`,
  `type X = typeof import("../store/x.ts");`,
  `import x = require("../store/x.ts");`,
  `declare module "../store/x.ts" {}`,
].map((text): Fixture => ["src/core/a.ts", text, `:1 imports "../store/x.ts"; ${CORE_ALLOWED}`]);

const COMPUTED = "imports a module by a computed name; only a literal can be checked";

const uncheckableImports: readonly Fixture[] = [
  ["src/core/a.ts", `const name = "x";\nawait import(name);`, `:2 ${COMPUTED}`],
  ["src/core/a.ts", `await import("../store/" + name);`, `:1 ${COMPUTED}`],
  [
    "src/core/a.ts",
    `/// <reference path="../store/x.ts" />`,
    `:1 refers to "../store/x.ts" by a comment: import it`,
  ],
  ["src/core/a.ts", `/// <reference types="bun" />`, `:1 refers to "bun" by a comment: import it`],
];

const importsFromEachFolder = [
  // Every way to write a path.
  ["src/core/a.ts", "../store/x", CORE_ALLOWED],
  ["src/core/a.ts", "./b", CORE_ALLOWED],
  ["src/core/a.ts", "../protocol/../store/x.ts", CORE_ALLOWED],
  ["src/core/deep/a.ts", "../../store/x.ts", CORE_ALLOWED],
  ["src/core/a.ts", "..", CORE_ALLOWED],
  ["src/core/a.ts", "../new.ts", CORE_ALLOWED],
  ["src/core/a.ts", "../corelike/x.ts", CORE_ALLOWED],
  ["src/core/a.ts", "../../test/support/x.ts", CORE_ALLOWED],
  ["src/core/a.ts", "/src/store/x.ts", CORE_ALLOWED],
  ["src/core/a.ts", "file:///x.ts", CORE_ALLOWED],
  ["src/core/a.ts", "../protocol/x.js", CORE_ALLOWED],
  ["src/core/a.ts", "../protocol/x.json", CORE_ALLOWED],

  // Every folder at its nearest mistake.
  ["src/protocol/a.ts", "../core/x.ts", PROTOCOL_ALLOWED],
  ["src/protocol/a.ts", "./schemas/client.ts", PROTOCOL_ALLOWED],
  ["src/protocol/schemas/client.ts", "../../core/x.ts", SCHEMAS_ALLOWED],
  ["src/store/a.ts", "../stream/x.ts", STORE_ALLOWED],
  ["src/stream/a.ts", "../http/x.ts", STREAM_ALLOWED],
  ["src/http/a.ts", "../runtimes/x.ts", HTTP_ALLOWED],
  ["src/runtimes/a.ts", "../cli/x.ts", RUNTIMES_ALLOWED],
  ["src/runtimes/a.ts", "../console/x.ts", RUNTIMES_ALLOWED],
  ["src/console/a.tsx", "../http/x.ts", CONSOLE_ALLOWED],
  ["src/cli/a.ts", "../store/x.ts", CLI_ALLOWED],
  ["clients/typescript/a.ts", "../../src/core/x.ts", CLIENT_ALLOWED],
  ["clients/typescript/a.ts", "../../src/protocol/schemas/client.ts", CLIENT_ALLOWED],
  ["clients/typescript/a.ts", "../../src/protocol/schemas", CLIENT_ALLOWED],
  ["clients/typescript/platform.ts", "../../src/protocol/x.ts", PLATFORM_ALLOWED],
  ["src/console/a.ts", "../../clients/typescript/platform.ts", CONSOLE_ALLOWED],

  // Packages.
  ["src/protocol/a.ts", "valibot", PROTOCOL_ALLOWED],
  ["src/core/a.ts", "valibot", CORE_ALLOWED],
  ["src/stream/a.ts", "valibot", STREAM_ALLOWED],
  ["src/console/a.ts", "valibot", CONSOLE_ALLOWED],
  ["src/cli/a.ts", "valibot", CLI_ALLOWED],
  ["clients/typescript/a.ts", "valibot", CLIENT_ALLOWED],
  ["src/store/a.ts", "hono", STORE_ALLOWED],
  ["src/stream/a.ts", "hono/ws", STREAM_ALLOWED],
  ["src/stream/a.ts", "@libsql/client", STREAM_ALLOWED],
  ["src/http/a.ts", "@libsql/client/web", HTTP_ALLOWED],
  ["src/store/a.ts", "@libsql/clientele", STORE_ALLOWED],
  ["src/http/a.ts", "npm:hono", HTTP_ALLOWED],
  ["src/store/a.ts", "node:fs", STORE_ALLOWED],
  ["src/store/a.ts", "fs", STORE_ALLOWED],
  ["src/store/a.ts", "bun", STORE_ALLOWED],
  ["src/cli/a.ts", "bun:sqlite", CLI_ALLOWED],
  ["src/runtimes/a.ts", "bun", RUNTIMES_ALLOWED],
  ["src/runtimes/a.ts", "cloudflare:workers", RUNTIMES_ALLOWED],
  ["src/runtimes/a.ts", "./deno.ts", RUNTIMES_ALLOWED],

  // SQL.
  ["src/core/a.ts", "../../migrations/0001_x.sql", CORE_ALLOWED],
  ["src/runtimes/a.ts", "../../migrations/0001_x.sql", RUNTIMES_ALLOWED],
  ["src/store/a.ts", "./x.sql", STORE_ALLOWED],
].map(
  ([path = "", specifier = "", rule = ""]): Fixture => [
    path,
    `import x from "${specifier}";`,
    `:1 imports "${specifier}"; ${rule}`,
  ],
);

const TIME =
  "which belongs to src/runtimes, clients/typescript/platform; take the clock or the timer as an argument";
const CHANCE =
  "which belongs to src/runtimes, clients/typescript/platform; take the source of chance as an argument";
const HOST = "which belongs to src/runtimes, src/cli; take what the runtime offers as an argument";
const entry = (runtime: string) =>
  `which belongs to src/runtimes/${runtime}; take what the runtime offers as an argument`;
const EVERYTHING =
  "which belongs to src/runtimes, clients/typescript/platform; name the global that is meant";

const refusedGlobals: readonly Fixture[] = [
  ["src/core/a.ts", "const now = 1;\n\nconst at = Date.now();", `:3 uses Date, ${TIME}`],
  ["src/core/a.ts", "const at = new Date();", `:1 uses Date, ${TIME}`],
  ["src/core/a.ts", "const at = Date();", `:1 uses Date, ${TIME}`],
  ["src/core/a.ts", "const { now } = Date;", `:1 uses Date, ${TIME}`],
  ["src/core/a.ts", `const at = Date["now"]();`, `:1 uses Date, ${TIME}`],
  ["src/core/a.ts", "const clock = { Date };", `:1 uses Date, ${TIME}`],
  ["src/core/a.ts", "export { Date };", `:1 uses Date, ${TIME}`],
  ["src/core/a.ts", "export const f = (now = Date.now) => now();", `:1 uses Date, ${TIME}`],
  ["src/core/a.ts", "export let at: Date;", `:1 uses Date, ${TIME}`],
  ["src/core/a.ts", "const at = Temporal.Now.instant();", `:1 uses Temporal, ${TIME}`],
  ["src/core/a.ts", "const at = performance.now();", `:1 uses performance, ${TIME}`],
  ["src/stream/a.ts", "setTimeout(() => {}, 1);", `:1 uses setTimeout, ${TIME}`],
  ["src/stream/a.ts", "const later = setTimeout;", `:1 uses setTimeout, ${TIME}`],
  ["src/stream/a.ts", "let timer: ReturnType<typeof setTimeout>;", `:1 uses setTimeout, ${TIME}`],
  ["src/stream/a.ts", "setInterval(() => {}, 1);", `:1 uses setInterval, ${TIME}`],
  ["src/stream/a.ts", "setImmediate(() => {});", `:1 uses setImmediate, ${TIME}`],
  ["clients/typescript/platform.ts", "Bun.sleep(1);", `:1 uses Bun, ${entry("bun")}`],
  ["clients/typescript/platform.ts", "process.exit(1);", `:1 uses process, ${HOST}`],
  ["src/cli/a.ts", "const at = Date.now();", `:1 uses Date, ${TIME}`],
  ["src/console/a.tsx", "const at = <p title={Date()} />;", `:1 uses Date, ${TIME}`],
  ["clients/typescript/a.ts", "const at = Date.now();", `:1 uses Date, ${TIME}`],

  ["src/core/a.ts", "const x = Math.random();", `:1 uses Math.random, ${CHANCE}`],
  ["src/core/a.ts", `const x = Math["random"]();`, `:1 uses Math.random, ${CHANCE}`],
  ["src/core/a.ts", "const { random } = Math;", `:1 uses Math as a whole, ${CHANCE}`],
  ["src/core/a.ts", "const M = Math;", `:1 uses Math as a whole, ${CHANCE}`],
  ["src/core/a.ts", `const key = "x";\nMath[key]();`, `:2 uses Math as a whole, ${CHANCE}`],
  ["src/http/a.ts", "const id = crypto.randomUUID();", `:1 uses crypto.randomUUID, ${CHANCE}`],
  ["src/http/a.ts", "crypto.getRandomValues(bytes);", `:1 uses crypto.getRandomValues, ${CHANCE}`],
  ["src/http/a.ts", "const { randomUUID } = crypto;", `:1 uses crypto as a whole, ${CHANCE}`],

  ["src/store/a.ts", "const file = Bun.file(path);", `:1 uses Bun, ${entry("bun")}`],
  ["src/store/a.ts", "export let server: Bun.Server;", `:1 uses Bun, ${entry("bun")}`],
  ["src/store/a.ts", "Deno.exit(1);", `:1 uses Deno, ${entry("deno")}`],
  ["src/runtimes/a.ts", "Bun.serve();", `:1 uses Bun, ${entry("bun")}`],
  ["src/runtimes/workers.ts", "Deno.serve();", `:1 uses Deno, ${entry("deno")}`],
  ["src/runtimes/deno.ts", "new WebSocketPair();", `:1 uses WebSocketPair, ${entry("workers")}`],
  ["src/store/a.ts", "const { env } = process;", `:1 uses process, ${HOST}`],
  ["src/store/a.ts", `const fs = require("node:fs");`, `:1 uses require, ${HOST}`],
  ["src/store/a.ts", "const here = import.meta.dir;", `:1 uses import.meta, ${HOST}`],
  ["src/core/a.ts", `const D = globalThis["Date"];`, `:1 uses globalThis, ${EVERYTHING}`],
  ["src/core/a.ts", "const at = globalThis.Date.now();", `:1 uses globalThis, ${EVERYTHING}`],
  ["src/cli/a.ts", "const at = globalThis.Date.now();", `:1 uses globalThis, ${EVERYTHING}`],
  ["src/core/a.ts", "global.setTimeout(() => {}, 1);", `:1 uses global, ${EVERYTHING}`],
  ["src/core/a.ts", "self.setTimeout(() => {}, 1);", `:1 uses self, ${EVERYTHING}`],
  ["src/console/a.ts", "window.setTimeout(() => {}, 1);", `:1 uses window.setTimeout, ${EVERYTHING}`],
  ["src/console/a.ts", `window["Date"].now();`, `:1 uses window.Date, ${EVERYTHING}`],
  ["src/console/a.ts", "const { random } = window.Math;", `:1 uses window.Math, ${EVERYTHING}`],
];

const FOLDERS =
  "src/protocol, src/protocol/schemas, src/core, src/store, src/stream, src/http, src/runtimes, src/runtimes/bun, " +
  "src/runtimes/deno, src/runtimes/workers, src/console, src/cli, clients/typescript, " +
  "clients/typescript/platform";
const barrel = (name: string) => `: "${name}" says nothing of what is inside; name it for its subject`;

const refusedPlaces: readonly Fixture[] = [
  ["src/main.ts", "", `: lies in no folder of the layout; allowed are ${FOLDERS}`],
  ["src/helpers/a.ts", "", `: lies in no folder of the layout; allowed are ${FOLDERS}`],
  ["src/storefront/a.ts", "", `: lies in no folder of the layout; allowed are ${FOLDERS}`],
  ["clients/python/a.ts", "", `: lies in no folder of the layout; allowed are ${FOLDERS}`],
  ["src/core/a.js", "", ": is not TypeScript; source files end in .ts or .tsx"],
  ["src/core/a.mts", "", ": is not TypeScript; source files end in .ts or .tsx"],
  ["src/core/utils.ts", "", barrel("utils.ts")],
  ["src/core/common.ts", "", barrel("common.ts")],
  ["src/core/types.ts", "", barrel("types.ts")],
  ["src/core/types.d.ts", "", barrel("types.d.ts")],
  ["src/core/index.ts", "", barrel("index.ts")],
  ["src/console/index.tsx", "", barrel("index.tsx")],
  ["src/core/utils/a.ts", "", barrel("utils")],
  ["clients/typescript/index.ts", "", barrel("index.ts")],
];

const refused = [
  ...formsOfImport,
  ...uncheckableImports,
  ...importsFromEachFolder,
  ...refusedGlobals,
  ...refusedPlaces,
];
const foundInRefused = await violationsOf(refused.map(([path, text]) => ({ path, text })));

test.each(refused.map(([path, text, message], index) => ({ path, title: titleOf(text), message, index })))(
  "the layout refuses in $path: $title",
  ({ path, message, index }) => {
    expect(foundInRefused[index]).toEqual([path + message]);
  },
);

test("the layout reports each mistake of a file", async () => {
  const text = `import "../store/x.ts";\nexport const at = Date.now() + Math.random();`;
  const [found] = await violationsOf([{ path: "src/core/a.ts", text }]);
  expect(found).toEqual([
    `src/core/a.ts:1 imports "../store/x.ts"; ${CORE_ALLOWED}`,
    `src/core/a.ts:2 uses Date, ${TIME}`,
    `src/core/a.ts:2 uses Math.random, ${CHANCE}`,
  ]);
});

// ── what must pass: path, source ─────────────────────────────────────────────────────────────────────────

const allowed: readonly (readonly [path: string, text: string])[] = [
  ["src/protocol/a.ts", `import "./b.ts"; export * from "./deep/c.ts";`],
  ["src/protocol/schemas/client.ts", `import * as v from "valibot"; import type { F } from "./frames.ts";`],
  ["src/core/a.ts", `import "./b.ts"; import "../protocol/x.ts"; import "../protocol/schemas/client.ts";`],
  ["src/core/deep/a.ts", `import "../b.ts"; import "../../protocol/x.ts";`],
  [
    "src/store/a.ts",
    `import "../core/x.ts"; import "../protocol/x.ts"; import "@libsql/client/web"; import * as v from "valibot";
     import sql from "../../migrations/0001_x.sql" with { type: "text" };`,
  ],
  ["src/stream/a.ts", `import "../store/x.ts"; import "../core/x.ts"; import "../protocol/x.ts";`],
  ["src/http/a.ts", `import "../stream/x.ts"; import "../store/x.ts"; import "hono/jwt"; import "valibot";`],
  [
    "src/runtimes/bun.ts",
    `import { serve } from "bun"; import "bun:sqlite"; import "node:fs"; import "hono/bun"; import "@libsql/client";
     import "valibot"; import "../http/x.ts"; import "../stream/x.ts"; import "../store/x.ts";
     setTimeout(() => Date.now() + Math.random() + performance.now(), process.pid);
     globalThis.crypto.randomUUID(); const { now } = Date; const here = import.meta.path; Bun.gc();`,
  ],
  ["src/runtimes/workers.ts", `import { DurableObject } from "cloudflare:workers";`],
  [
    "src/console/a.tsx",
    `import "../../clients/typescript/consumer.ts"; import "../protocol/x.ts"; import "./page.tsx"; <a self="x" />;`,
  ],
  [
    "src/cli/a.ts",
    `import "node:fs"; import "../runtimes/x.ts"; import "../../clients/typescript/admin.ts"; process.exit(1);`,
  ],
  [
    "clients/typescript/a.ts",
    `import type { F } from "../../src/protocol/frames.ts"; import "./consumer.ts"; import "./platform.ts";`,
  ],
  [
    "clients/typescript/platform.ts",
    "setTimeout(() => Math.random(), 1); crypto.randomUUID(); const page = globalThis; new WebSocket(page.url);",
  ],
  [
    "src/core/a.ts",
    "queueMicrotask(() => Math.max(1, 2)); type F = typeof Math.floor; function C() { return new.target; }",
  ],
  ["src/http/a.ts", "await crypto.subtle.digest(name, bytes); clearTimeout(timer);"],

  // Members that are only called like a global, and text that only looks like code.
  [
    "src/core/a.ts",
    "clock.Date.now(); ports.setTimeout(1); this.process(); deps?.performance; x.Math.random();",
  ],
  [
    "src/core/a.ts",
    "export interface Ports { setTimeout(ms: number): void; Date: number; process?: string }",
  ],
  [
    "src/core/a.ts",
    "export class P { process = 1; setTimeout() {} get self() { return 1; } set self(x) {} }",
  ],
  ["src/core/a.ts", "const { setTimeout: later } = ports; const p = { process: 1, Date: 2, self() {} };"],
  ["src/core/a.ts", `import { setTimeout as later } from "./ports.ts"; export type T = Ns.Date;`],
  ["src/core/a.ts", "export function f(window: W) { return window.records + window.bytes - half(window); }"],
  [
    "src/core/a.ts",
    "// Date.now()\n/** {@link Date} @param {Date} x import('../store/x.ts') */\nexport let x: number;",
  ],
  ["src/core/a.ts", "const s = 'Date.now()'; const t = `import('../store/x.ts')`; const r = /Math.random/;"],
];

const foundInAllowed = await violationsOf(allowed.map(([path, text]) => ({ path, text })));

test.each(allowed.map(([path, text], index) => ({ path, title: titleOf(text), index })))(
  "the layout allows in $path: $title",
  ({ index }) => {
    expect(foundInAllowed[index]).toEqual([]);
  },
);

function titleOf(text: string): string {
  return text.replace(/\s+/g, " ");
}
