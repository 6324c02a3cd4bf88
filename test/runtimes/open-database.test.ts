// What a server says that could open its database and not begin on it. (Of the opening: bun.test.ts and remote.test.ts.)

import { describe, expect, test } from "bun:test";
import type { Scheduler } from "../../src/core/ports.ts";
import { Problem } from "../../src/core/problem.ts";
import { DatabaseError } from "../../src/runtimes/database-error.ts";
import { beginOn } from "../../src/runtimes/open-database.ts";
import { beginErrorOfFile } from "../../src/runtimes/open-file.ts";
import { beginErrorOfRemote } from "../../src/runtimes/open-remote.ts";
import { DbError } from "../../src/store/db.ts";
import { realTime } from "../support/sqld.ts";

const scheduler: Scheduler = {
  ...realTime,
  after: (_, run) => {
    setImmediate(run);
    return () => {};
  },
};
const ofFile = beginErrorOfFile("/data/t.db");
const ofRemote = beginErrorOfRemote("http://localhost:8080");

async function refusal(failure: Error, errorOf: typeof ofFile): Promise<unknown> {
  const begin = () => Promise.reject(failure);
  return beginOn(begin, { scheduler, errorOf }).catch((error: unknown) => error);
}

describe("beginOn()", () => {
  test.each([
    ["a full disk", new Problem("storage_full", "no room"), ofFile, "no room left on the disk of /data/t.db"],
    ["a full disk", new DbError("full", "no room"), ofFile, "no room left on the disk of /data/t.db"],
    ["a lock", new Problem("unavailable", "15 s"), ofFile, "holds the write lock of /data/t.db"],
    [
      "a failed commit",
      new Problem("outcome_unknown", "who knows"),
      ofFile,
      "cannot use /data/t.db: who knows",
    ],
    [
      "a remote one",
      new Problem("storage_full", "no room"),
      ofRemote,
      "database http://localhost:8080: no room",
    ],
    ["a remote one", new DbError("rejected", "no"), ofRemote, "database http://localhost:8080: no"],
  ] as const)("says what is to be done about %s", async (_, failure, errorOf, message) => {
    const error = await refusal(failure, errorOf);
    expect(error).toBeInstanceOf(DatabaseError);
    expect(String(error)).toContain(message);
  });

  test("leaves a defect as it is", async () => {
    const defect = new TypeError("undefined is not a function");
    expect(await refusal(defect, ofFile)).toBe(defect);
  });

  test("tries again what may pass", async () => {
    let tries = 0;
    const begin = async () => {
      tries += 1;
      if (tries < 3) throw new DbError("io", "the connection is gone");
    };
    await beginOn(begin, { scheduler, errorOf: ofRemote });
    expect(tries).toBe(3);
  });
});
