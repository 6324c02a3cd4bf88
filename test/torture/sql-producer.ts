// Another program that appends by INSERT INTO append_record, in stock SQLite beside the server's file: each send is one
// transaction of its own. It writes while the server does, and while there is none.

import { Database } from "bun:sqlite";
import type { Load } from "./load.ts";
import { eventOf } from "./sends.ts";

/** It holds this process up for as long, so it gives up soon. */
const BUSY_MS = 5;
const RECORDS_MAX = 3;

export async function produceBySql(
  load: Load,
  name: string,
  { path, topics }: { path: string; topics: readonly string[] },
): Promise<void> {
  const database = new Database(path);
  database.run(`PRAGMA busy_timeout = ${BUSY_MS}`);
  database.run("PRAGMA wal_autocheckpoint = 0"); // as docs/sql.md wants it
  const insert = database.prepare("INSERT INTO append_record (topic, key, value) VALUES (?, ?, ?)");
  const append = database.transaction((topic: string, values: readonly string[]) => {
    for (const value of values) insert.run(topic, value.slice(-2), JSON.stringify(value));
  });
  while (load.isSending) {
    await load.recorder.opened();
    const send = load.recorder.name(name);
    const topic = load.dice.pick(topics);
    const values = Array.from({ length: load.dice.between(1, RECORDS_MAX) }, (_, n) => `${send}.${n}`);
    load.recorder.write(
      eventOf({ name: send, producer: name, sequence: undefined, appends: [{ topic, values }] }),
    );
    try {
      append.immediate(topic, values);
      load.recorder.write({ type: "sent", send, runs: [] });
      load.tally.acknowledged += 1;
    } catch (error) {
      const { code } = Object(error);
      // What fails otherwise may have failed in the COMMIT.
      if (code === "SQLITE_BUSY" || code === "SQLITE_FULL")
        load.recorder.write({ type: "not-sent", send, code });
      else if (!String(code).startsWith("SQLITE_")) load.problems.push(`${send}: ${String(error)}`);
    }
    await Bun.sleep(load.dice.between(5, 40)); // also in a rush: all that it does is done at once, and others wait
  }
  insert.finalize();
  database.close();
}
