import { expect, test } from "bun:test";
import { ProducerQueue, type Waiting } from "../../clients/typescript/producer-queue.ts";

const LIMITS = { batchRecords: 4, batchLength: 20 };

function item(topic: string, text: string, { count = 1, isAlone = false } = {}): Waiting {
  return { topic, text, count, isAlone };
}

function queueOf(...items: readonly Waiting[]): ProducerQueue<Waiting> {
  const queue = new ProducerQueue<Waiting>(LIMITS);
  for (const each of items) queue.push(each);
  return queue;
}

/** The texts of each batch. */
function takeAll(queue: ProducerQueue<Waiting>): string[] {
  const batches: string[] = [];
  for (let items = queue.take(); items; items = queue.take())
    batches.push(items.map(({ text }) => text).join("+"));
  return batches;
}

test("sends to one topic go together, past those of others", () => {
  expect(takeAll(queueOf(item("a", "1"), item("b", "2"), item("a", "3")))).toEqual(["1+3", "2"]);
});

test("a batch has at most so many records and characters, and a larger send goes undivided", () => {
  expect(takeAll(queueOf(item("a", "1", { count: 3 }), item("a", "2", { count: 2 })))).toEqual(["1", "2"]);
  const long = "x".repeat(15);
  expect(takeAll(queueOf(item("a", long), item("a", long)))).toEqual([long, long]);
  expect(takeAll(queueOf(item("a", "1", { count: 9 }), item("a", "2")))).toEqual(["1", "2"]);
});

test("nothing passes what goes alone", () => {
  const alone = item("a", "2", { isAlone: true });
  expect(takeAll(queueOf(item("b", "1"), alone, item("b", "3"), item("a", "4")))).toEqual([
    "1",
    "2",
    "3",
    "4",
  ]);
});

test("what is put back comes first, and nothing that comes later is gathered into it", () => {
  const queue = queueOf(item("a", "3"));
  queue.putBack([item("a", "1"), item("a", "2")]);
  queue.push(item("a", "4"));
  expect(takeAll(queue)).toEqual(["1+2", "3+4"]);
});

test("isFull says that there is a batch to which nothing may be added", () => {
  expect(queueOf().isFull).toBe(false);
  expect(queueOf(item("a", "1"), item("b", "2")).isFull).toBe(false);
  expect(queueOf(item("a", "1", { count: 4 })).isFull).toBe(true);
  expect(queueOf(item("a", "1", { count: 2 }), item("a", "2", { count: 2 })).isFull).toBe(true);
  expect(queueOf(item("a", "1", { isAlone: true })).isFull).toBe(true);
});

test("what is removed is in no batch any more, and makes room", () => {
  const gone = item("a", "1", { count: 3 });
  const queue = queueOf(gone, item("b", "2"));
  expect(queue.remove((each) => each === gone)).toEqual([gone]);
  expect(queue.remove((each) => each === gone)).toEqual([]);
  queue.push(item("a", "3"));
  expect(takeAll(queue)).toEqual(["2", "3"]);
});
