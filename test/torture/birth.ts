// Starts that are killed: of a file that is not there yet, and of one that an old server has left.

import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { HttpClient } from "../support/http-client.ts";
import { spawnServer, startServer, temporaryFolder } from "../support/server.ts";
import { versionOneSql } from "../support/version-one.ts";
import type { Bout } from "./bout.ts";
import type { Scenario } from "./scenario.ts";
import { findBrokenRules, sightOfFile } from "./sight.ts";

const OLD_RECORDS = 2_500;

export const birth: Scenario = {
  name: "birth",
  faults: "files, fresh or of schema version 1, whose first starts were killed",
  figure: 100,
  async run(bout) {
    const wrong: string[] = [];
    let acknowledged = 0;
    while (bout.goesOn) {
      using folder = temporaryFolder();
      const path = join(folder.path, "made", "t.db");
      const isOld = bout.dice.isLucky(0.4);
      if (isOld) makeOldFile(path);
      for (let starts = bout.dice.between(1, 3); starts > 0; starts -= 1) await killStart(bout, path);
      wrong.push(...(await findWrongAfterBirth(path, isOld)));
      acknowledged += 1;
      bout.noteFault();
    }
    return {
      faults: bout.faults,
      acknowledged,
      unknown: 0,
      settled: 0,
      recordsRead: acknowledged,
      wrong,
      notes: [],
    };
  },
};

/** What was begun is finished by whoever starts next, and nothing is left half done. */
async function findWrongAfterBirth(path: string, isOld: boolean): Promise<readonly string[]> {
  try {
    await using server = await startServer(path, { mode: "serve" });
    const http = new HttpClient(server);
    await http.createTopic("first", 2);
    await http.produceNumbers("first", 10);
    const { body } = await http.call("GET", "/v1/topics/first/partitions/0/records");
    const isThere = body.records.length === 10 && (!isOld || (await hasOldRecords(http)));
    return [
      ...(isThere ? [] : [`of ten records ${JSON.stringify(body)}`]),
      ...(await findBrokenRules(sightOfFile(path))),
    ];
  } catch (error) {
    return [String(error)];
  }
}

function makeOldFile(path: string): void {
  mkdirSync(dirname(path));
  const file = new Database(path);
  file.run("PRAGMA journal_mode = WAL");
  file.run(
    versionOneSql({ partition: 0, timestamps: Array.from({ length: OLD_RECORDS }, (_, n) => n * 10) }),
  );
  file.close();
}

/** By the index of times too, which the first of the newer versions makes. */
async function hasOldRecords(http: HttpClient): Promise<boolean> {
  const path = "/v1/topics/orders/partitions/0/records";
  const all = await http.call("GET", `${path}?limit=10000`);
  const late = await http.call("GET", `${path}?from=@15001&limit=1`);
  return all.body.records.length === OLD_RECORDS && late.body.records[0].offset === 1_501;
}

/** Wherever it is by then. */
export async function killStart(bout: Bout, path: string): Promise<void> {
  const child = spawnServer(path, { mode: "serve" });
  await Bun.sleep(bout.dice.between(0, 110)); // a start takes about 90 ms
  child.kill("SIGKILL");
  await child.exited;
}
