// Eighty seeds of the simulation, and that a seed is all that a run follows from. `bun run simulate` runs more.

import { afterAll, expect, test } from "bun:test";
import { SimulatedDatabase } from "./database.ts";
import { historyText, wrongWith } from "./simulate.ts";
import { type Run, runSeed } from "./simulation.ts";

const SEEDS = 80;
const REPLAYED_SEEDS = [1, 2, 3];
const TEST_TIMEOUT_MS = 120_000;

const database = await SimulatedDatabase.open();
afterAll(() => database.close());

const runs: Run[] = [];

test(
  `${SEEDS} seeds lose nothing, mix nothing up and come to rest, whatever goes wrong`,
  async () => {
    for (let seed = 1; seed <= SEEDS; seed += 1) runs.push(await runSeed(database, seed));
    const wrong = runs.flatMap((run) =>
      wrongWith(run).map((what) => `SEED=${run.seed} bun run simulate: ${what}`),
    );
    expect(wrong).toEqual([]);
    console.log(summaryOf(runs));
  },
  TEST_TIMEOUT_MS,
);

test.each(REPLAYED_SEEDS)("SEED=%p gives the same history again, byte for byte", async (seed) => {
  const before = runs.find((run) => run.seed === seed) ?? (await runSeed(database, seed));
  expect(historyText(await runSeed(database, seed))).toBe(historyText(before));
});

test("SEED=1 gives the same history in another process", async () => {
  const command = [process.execPath, `${import.meta.dir}/simulate.ts`];
  const { stdout, exitCode } = Bun.spawnSync(command, { env: { ...process.env, SEED: "1" } });
  expect(exitCode).toBe(0);
  const here = historyText(await runSeed(database, 1));
  expect(stdout.toString()).toContain(new Bun.CryptoHasher("sha256").update(here).digest("hex"));
});

test("faults of every kind come up, and both modes", () => {
  const calls = Object.keys(runs[0]?.faults.calls ?? {});
  const disasters = Object.keys(runs[0]?.faults.disasters ?? {});
  expect(calls).toHaveLength(6);
  expect(disasters).toHaveLength(9);
  for (const name of calls) expect(runs.some(({ faults }) => Reflect.get(faults.calls, name) > 0)).toBe(true);
  for (const name of disasters)
    expect(runs.some(({ faults }) => Reflect.get(faults.disasters, name) !== undefined)).toBe(true);
  expect(new Set(runs.map(({ mode }) => mode)).size).toBe(2);
  expect(new Set(runs.map(({ setting }) => setting)).size).toBe(3);
});

test("records go by compaction and by retention, keys are missed, and groups expire", () => {
  const snapshotsOf = ({ history }: Run) => history.filter((event) => event.type === "snapshot");
  const groupsOf = (run: Run) => snapshotsOf(run).flatMap(({ groups = [] }) => groups);
  const logsOf = (run: Run) => snapshotsOf(run).flatMap(({ logs }) => logs);
  const count = (isSo: (run: Run) => boolean) => runs.filter(isSo).length;
  expect(count((run) => logsOf(run).some(({ gone }) => gone))).toBeGreaterThan(10);
  expect(count((run) => logsOf(run).some(({ logStartOffset }) => logStartOffset > 0))).toBeGreaterThan(10);
  expect(
    count(({ history }) =>
      history.some((event) => event.type === "not-sent" && event.code === "bad_request"),
    ),
  ).toBeGreaterThan(1);
  const cameAgain = (run: Run) =>
    Map.groupBy(groupsOf(run), ({ group }) => group)
      .values()
      .some((lives) => new Set(lives.map(({ createdAt }) => createdAt)).size > 1);
  expect(count(cameAgain)).toBeGreaterThan(0);
});

function summaryOf(done: readonly Run[]): string {
  const events = done.reduce((sum, { history }) => sum + history.length, 0);
  const settled = done.flatMap(({ settledAfterMs }) => settledAfterMs ?? []).sort((a, b) => a - b);
  const rates = done.map(({ faults }) => Object.values(faults.calls).reduce((sum, rate) => sum + rate, 0));
  const [least = 0, most = 0] = [Math.min(...rates), Math.max(...rates)];
  const percent = (rate: number) => `${(rate * 100).toFixed(0)} %`;
  return [
    `simulation: seeds 1 to ${SEEDS}, ${events} events,`,
    `between ${percent(least)} and ${percent(most)} of the calls to the database faulty,`,
    `settled after ${settled.at(settled.length / 2)} virtual ms at the median, ${settled.at(-1)} at most`,
  ].join(" ");
}
