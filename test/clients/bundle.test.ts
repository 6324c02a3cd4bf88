// What a browser has to load, at most: for a page that consumes, and for everything that the client exports.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { gzipSync } from "bun";
import { FROM_SOURCE } from "../support/program.ts";
import { temporaryFolder } from "../support/server.ts";

const entryOf = (name: string) => `import * as client from "${name}"; globalThis.client = client;`;

const consumer = await bundleForBrowsers(entryOf("@tidemark/client/consumer"));
const whole = await bundleForBrowsers(entryOf("@tidemark/client"));

async function bundleForBrowsers(source: string): Promise<string> {
  using folder = temporaryFolder();
  const entry = join(folder.path, "entry.ts");
  await Bun.write(entry, source);
  await Bun.write(join(folder.path, "tsconfig.json"), JSON.stringify({ compilerOptions: FROM_SOURCE }));
  const { outputs } = await Bun.build({
    entrypoints: [entry],
    target: "browser",
    minify: true,
    packages: "external", // else Bun puts stand-ins for Node's modules into it, and nobody sees that they were wanted
  });
  expect(outputs).toHaveLength(1);
  return (await outputs[0]?.text()) ?? "";
}

test.each([
  { what: "what consumes", bundle: consumer, gzippedBytesMax: 12 * 1024 },
  { what: "the whole client", bundle: whole, gzippedBytesMax: 20 * 1024 },
])("$what is in the bundle, and is at most $gzippedBytesMax bytes gzipped", ({ bundle, gzippedBytesMax }) => {
  expect(bundle).toContain("/v1/stream");
  const { length } = gzipSync(bundle, { level: 9 });
  const said = `${length} bytes gzipped, of ${gzippedBytesMax} at most`;
  expect({ said, fits: length <= gzippedBytesMax }).toEqual({ said, fits: true });
});

test("what only consumes has nothing in it that produces", () => {
  expect([consumer, whole].map((bundle) => bundle.includes('"type":"produce"'))).toEqual([false, true]);
});

test.each([
  { what: "modules that are not in it", pattern: /\b(import|from)\s*["'{]|\b(import|require)\(/ },
  { what: "Node's modules", pattern: /["'`]node:/ },
  { what: "Bun's global", pattern: /\bBun\??\.\w|\.Bun\b/ },
  { what: "Deno's global", pattern: /\bDeno\??\.\w|\.Deno\b/ },
  { what: "Node's global", pattern: /\bprocess\??\.\w|\.process\b/ },
  { what: "valibot", pattern: /valibot|safeParse|strictObject/i },
])("the bundle has in it nothing of: $what", ({ pattern }) => {
  expect(whole.match(pattern)?.[0]).toBeUndefined();
});
