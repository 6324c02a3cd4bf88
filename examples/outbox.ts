// An application's own tables, in the database of the server: an outbox without a relay, and results with their offset.
//
//   bun examples/outbox.ts [http://127.0.0.1:4500 [.tidemark/tidemark.db]]
//
// A customer and the record in "customers" that tells of it are one transaction: both are there, or none is. A consumer
// writes a greeting for each, together with its committed offset: killed whenever you like and started again, it greets
// nobody twice and forgets nobody. docs/sql.md says what the two views take, and what a connection to the file needs.

import { Database } from "bun:sqlite";
import process from "node:process";
import { type Batch, connect } from "@tidemark/client";

const [url = "http://127.0.0.1:4500", path = ".tidemark/tidemark.db"] = process.argv.slice(2);
const RETRY_MS = 50;

const database = new Database(path, { readwrite: true });
// Before the rest: the server may be writing.
database.run("PRAGMA busy_timeout = 15000");
database.run("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 0");
database.run(`
  CREATE TABLE IF NOT EXISTS customers (id TEXT PRIMARY KEY, name TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS greetings (customer TEXT PRIMARY KEY, text TEXT NOT NULL)`);

const insertCustomer = database.prepare("INSERT INTO customers VALUES (?, ?)");
const appendRecord = database.prepare(
  "INSERT INTO append_record (topic, key, value) VALUES ('customers', ?, ?)",
);
const insertGreeting = database.prepare("INSERT INTO greetings VALUES (?, ?)");
const commitOffset = database.prepare(
  "INSERT INTO commit_offset (group_id, topic, partition, generation, offset) VALUES (?, ?, ?, ?, ?)",
);

/** `immediate`: it waits for its turn to write at its beginning. What throws rolls all of it back. */
const addCustomer = database.transaction((id: string, name: string) => {
  insertCustomer.run(id, name);
  appendRecord.run(id, JSON.stringify({ name }));
}).immediate;

const greet = database.transaction((batch: Batch) => {
  for (const { key = "", value } of batch.records)
    insertGreeting.run(key, `Hello, ${(value as Customer).name}`);
  const { group, offsets } = batch.commits();
  for (const { topic, partition, generation, offset } of offsets)
    commitOffset.run(group, topic, partition, generation, offset);
}).immediate;

interface Customer {
  readonly name: string;
}

/** Returns false where the partition is somebody else's now: nothing was written, and its owner greets them. */
async function greetOnce(batch: Batch): Promise<boolean> {
  for (; !batch.signal.aborted; await Bun.sleep(RETRY_MS)) {
    try {
      greet(batch);
      return true;
    } catch (error) {
      // Or the connection was lost, and the batch is still ours, in a generation that comes with the next one.
      if (!(error instanceof Error && error.message.startsWith("fenced_generation"))) throw error;
    }
  }
  return false;
}

await using tidemark = connect({ url });
tidemark.on("trouble", (error) => console.error(error.message)); // it connects again by itself
await tidemark.admin.putTopic("customers");

const run = Date.now();
for (const name of ["Ada", "Grace", "Linus"]) addCustomer(`${name.toLowerCase()}-${run}`, name);
try {
  addCustomer(`ada-${run}`, "Ada"); // she is there already: no row, and no record
} catch (error) {
  console.log(`refused: ${error instanceof Error ? error.message : error}`);
}

// Going on from a batch acknowledges it: the server finds that nothing is left to commit, and sends more.
for await (const batch of tidemark.consume("customers", { group: "greeter" })) {
  if (await greetOnce(batch)) console.log(`greeted ${batch.records.map(({ key }) => key).join(", ")}`);
  if (batch.lag === 0) break;
}
