// Another program that works in the database file. For each line on its standard input, a number of milliseconds, it
// holds the write lock that long, in a transaction that writes, and says `taken N` and `released N`.

import { Database } from "bun:sqlite";

const [path = ""] = process.argv.slice(2);
const db = new Database(path);
db.run("PRAGMA busy_timeout = 5000");
db.run("PRAGMA wal_autocheckpoint = 0"); // one connection checkpoints, the server's
db.run("CREATE TABLE IF NOT EXISTS other_work (hold INTEGER)");

let hold = 0;
for await (const line of console) {
  db.run("BEGIN IMMEDIATE");
  db.run("INSERT INTO other_work VALUES (?)", [hold]);
  process.stdout.write(`taken ${hold}\n`);
  Bun.sleepSync(Number(line));
  db.run("COMMIT");
  process.stdout.write(`released ${hold}\n`);
  hold += 1;
}
db.close();
