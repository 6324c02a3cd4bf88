import { expect, test } from "bun:test";
import { Problem } from "../../src/core/problem.ts";
import { Batches } from "../../src/store/batches.ts";
import { DbError } from "../../src/store/db.ts";
import { FakeTime } from "../support/fake-time.ts";

/** Doubles numbers; `refuse` says what it throws for a batch. */
function doubling(
  refuse: (batch: readonly number[]) => Error | undefined = () => undefined,
  { weightMax = Number.POSITIVE_INFINITY } = {},
) {
  const time = new FakeTime();
  const runs: (readonly number[])[] = [];
  const batches = new Batches<number, number>({
    scheduler: time,
    requestsMax: 4,
    weightMax,
    weigh: (request) => request,
    run: async (batch) => {
      runs.push(batch);
      const refusal = refuse(batch);
      if (refusal) throw refusal;
      return batch.map((each) => each * 2);
    },
  });
  const submitAll = async (requests: readonly number[]) => {
    const settled = Promise.allSettled(requests.map((request) => batches.submit(request)));
    await time.settle();
    return (await settled).map((one) =>
      one.status === "fulfilled" ? one.value : String(one.reason.message),
    );
  };
  return { runs, submitAll };
}

test("Batches runs what is asked in one turn together, at most so many at once, each with its own result", async () => {
  const { runs, submitAll } = doubling();
  expect(await submitAll([1, 2, 3, 4, 5])).toEqual([2, 4, 6, 8, 10]);
  expect(runs).toEqual([[1, 2, 3, 4], [5]]);
  expect(await submitAll([6])).toEqual([12]);
  expect(runs).toHaveLength(3);
});

test("Batches are cut by what the requests weigh, and one that is too heavy runs alone", async () => {
  const { runs, submitAll } = doubling(undefined, { weightMax: 10 });
  await submitAll([4, 5, 2, 50, 1, 1]);
  expect(runs).toEqual([[4, 5], [2], [50], [1, 1]]);
});

test.each([
  ["the database", new DbError("rejected", "refused")],
  ["the write queue", new Problem("internal", "refused")],
])("Batches of which %s refuses one request refuses that one only", async (_, refusal) => {
  const { submitAll } = doubling((batch) => (batch.includes(3) ? refusal : undefined));
  expect(await submitAll([1, 2, 3, 4])).toEqual([2, 4, "refused", 8]);
});

test.each([
  new DbError("io", "gone"),
  new DbError("unknown", "gone"),
  new Problem("outcome_unknown", "gone"),
  new Problem("unavailable", "gone"),
])("Batches that fail with %p are not run again", async (failure) => {
  const { runs, submitAll } = doubling(() => failure);
  expect(await submitAll([1, 2])).toEqual(["gone", "gone"]);
  expect(runs).toEqual([[1, 2]]);
});
