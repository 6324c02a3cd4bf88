// What a browser has to load for the client, at most: everything that it exports.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { gzipSync } from "bun";
import { FROM_SOURCE } from "../support/program.ts";
import { temporaryFolder } from "../support/server.ts";

const GZIPPED_BYTES_MAX = 12 * 1024;

const ENTRY = `import * as client from "@tidemark/client"; globalThis.client = client;`;

const bundle = await bundleForBrowsers(ENTRY);

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

test("the whole client is in the bundle, and is at most 12 KiB gzipped", () => {
  expect(bundle).toContain("/v1/stream");
  const { length } = gzipSync(bundle, { level: 9 });
  const said = `${length} bytes gzipped, of ${GZIPPED_BYTES_MAX} at most`;
  expect({ said, fits: length <= GZIPPED_BYTES_MAX }).toEqual({ said, fits: true });
});

test.each([
  { what: "modules that are not in it", pattern: /\b(import|from)\s*["'{]|\b(import|require)\(/ },
  { what: "Node's modules", pattern: /["'`]node:/ },
  { what: "Bun's global", pattern: /\bBun\??\.\w|\.Bun\b/ },
  { what: "Deno's global", pattern: /\bDeno\??\.\w|\.Deno\b/ },
  { what: "Node's global", pattern: /\bprocess\??\.\w|\.process\b/ },
  { what: "valibot", pattern: /valibot|safeParse|strictObject/i },
])("the bundle has in it nothing of: $what", ({ pattern }) => {
  expect(bundle.match(pattern)?.[0]).toBeUndefined();
});
