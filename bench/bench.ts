// bun run bench: Tidemark beside the raw database and its peers, in one run on one machine.
//
//   --only a,b   these workloads or systems     --quick   two short rounds     --json    for machines
//   --write      into bench/results.json and the README     --growth  how cost and memory grow, instead

import { join } from "node:path";
import { parseArgs } from "node:util";
import { startDurableStreams } from "./durable-streams.ts";
import { measureGrowth } from "./growth.ts";
import { inputOf } from "./input.ts";
import { startNats } from "./nats.ts";
import { startRaw } from "./raw.ts";
import { writeReadme } from "./readme.ts";
import { startRedis } from "./redis.ts";
import { type Results, type System, tableOf } from "./results.ts";
import { type IsWanted, machine, runRounds } from "./rounds.ts";
import { type Missing, type Subject, WORKLOADS } from "./subject.ts";
import { startTidemark } from "./tidemark.ts";

const FULL = { rounds: 5, records: 100_000, singles: 20_000 };
const QUICK = { rounds: 2, records: 20_000, singles: 4_000 };
const STARTS = [startTidemark, startRaw, startNats, startRedis, startDurableStreams];

const { values: flags } = parseArgs({
  options: {
    only: { type: "string", default: "" },
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
    growth: { type: "boolean", default: false },
  },
});

if (flags.growth) console.log(await measureGrowth({ isQuick: flags.quick, isWritten: flags.write }));
else await compare();

async function compare(): Promise<void> {
  if (flags.write && (flags.quick || flags.only !== "")) throw new Error("--write is for a whole run");
  const results = await measure(flags.quick ? QUICK : FULL, wanted(flags.only));
  console.log(flags.json ? JSON.stringify(results, null, 2) : tableOf(results));
  if (!flags.write) return;
  await Bun.write(join(import.meta.dir, "results.json"), `${JSON.stringify(results, null, 2)}\n`);
  await writeReadme("bench", tableOf(results));
}

/** A trial is wanted where its workload is named, or none is, and its system is, or none is. */
function wanted(only: string): IsWanted {
  const words = only.split(",").filter((word) => word !== "");
  const workloads = words.filter((word) => WORKLOADS.some((name) => name === word));
  const systems = words.filter((word) => !workloads.includes(word)).map((word) => word.toLowerCase());
  const isSystem = (system: string) => systems.some((word) => system.toLowerCase().includes(word));
  return (system, workload) =>
    (systems.length === 0 || isSystem(system)) &&
    (workload === undefined || workloads.length === 0 || workloads.includes(workload));
}

async function measure({ rounds, records, singles }: typeof FULL, isWanted: IsWanted): Promise<Results> {
  await using stack = new AsyncDisposableStack();
  const input = inputOf(records, singles);
  const systems: System[] = [];
  const subjects: Subject[] = [];
  for (const start of STARTS) {
    const started = await start(input);
    systems.push(systemOf(started));
    if (!("missing" in started)) subjects.push(stack.use(started));
  }
  const wantedSubjects = subjects.filter(({ name }) => isWanted(name));
  const trials = await runRounds(wantedSubjects, rounds, isWanted);
  return { machine: machine(), rounds, recordsARound: records, systems, trials };
}

function systemOf(started: Subject | Missing): System {
  if ("missing" in started) return { ...started, version: "", durability: "" };
  const { name, version, durability } = started;
  return { name, version, durability };
}
