// bun run bench:runtimes: the same server on Bun, Deno and workerd, over the same databases, in one run.
//
//   --quick   two short rounds     --write   into bench/runtimes.json and the README

import { join } from "node:path";
import { parseArgs } from "node:util";
import { type AnyServer, type ProcessRuntime, startServer, temporaryFolder } from "../test/support/server.ts";
import { startSqld } from "../test/support/sqld.ts";
import { startWorker } from "../test/support/worker.ts";
import { inputOf } from "./input.ts";
import { writeReadme } from "./readme.ts";
import { machine, runRounds } from "./rounds.ts";
import { type RuntimeResults, runtimeTableOf } from "./runtimes-table.ts";
import type { Subject } from "./subject.ts";
import { trialsOf } from "./tidemark.ts";

const FULL = { rounds: 5, records: 50_000, singles: 5_000 };
const QUICK = { rounds: 2, records: 10_000, singles: 1_000 };

const { values: flags } = parseArgs({
  options: { quick: { type: "boolean", default: false }, write: { type: "boolean", default: false } },
});
if (flags.quick && flags.write) throw new Error("--write is for a whole run");

const results = await measure(flags.quick ? QUICK : FULL);
const table = runtimeTableOf(results);
console.log(table);
if (flags.write) {
  await Bun.write(join(import.meta.dir, "runtimes.json"), `${JSON.stringify(results, null, 2)}\n`);
  await writeReadme("runtimes", table);
}

async function measure({ rounds, records, singles }: typeof FULL): Promise<RuntimeResults> {
  await using stack = new AsyncDisposableStack();
  const { path: folder } = stack.use(temporaryFolder());
  /** Each has one of its own, so that nobody looks for what another has appended. */
  const ownSqld = async () => stack.use(await startSqld()).url;
  const onFile = (runtime: ProcessRuntime) => startServer(join(folder, `${runtime}.db`), { runtime });
  const servers: readonly (readonly [string, AnyServer])[] = [
    ["Bun, file", stack.use(await onFile("bun"))],
    ["Deno, file", stack.use(await onFile("deno"))],
    ["Bun, sqld", stack.use(await startServer(await ownSqld()))],
    ["Deno, sqld", stack.use(await startServer(await ownSqld(), { runtime: "deno" }))],
    ["Workers, sqld", stack.use(await startOnWorkers(await ownSqld()))],
  ];
  const input = inputOf(records, singles);
  const subjects = servers.map(([name, server]): Subject => {
    const stopped = { version: "", durability: "", [Symbol.asyncDispose]: async () => {} };
    return { name, trials: trialsOf(input, server), ...stopped };
  });
  return { machine: machine(), rounds, recordsARound: records, trials: await runRounds(subjects, rounds) };
}

function startOnWorkers(url: string): Promise<AnyServer> {
  return startWorker({
    variables: {
      TURSO_DATABASE_URL: url,
      TIDEMARK_WITHOUT_CREDENTIALS: "true",
      TIDEMARK_AUTO_CREATE: "true",
    },
  });
}
