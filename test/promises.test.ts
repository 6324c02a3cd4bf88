// What README.md promises, and what PROTOCOL.md says of exactly once: each sentence stands here with the tests that would
// fail if it were not so.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const REPOSITORY = join(import.meta.dir, "..");

type Tests = readonly (readonly [file: string, name: string])[];

/** The beginning of each item of a list, and its tests. */
type Promises = readonly (readonly [beginning: string, tests: Tests])[];

const README: Promises = [
  [
    "An answered produce or transaction",
    [
      ["store/embedded.test.ts", '["synchronous", 2]'],
      ["exactly-once/kill.test.ts", "over kills of the server are each written once, in order, all of it"],
      ["earthquakes.test.ts", "across a kill -9"],
    ],
  ],
  ["`kill -9` at any moment", [["earthquakes.test.ts", "every earthquake goes in over HTTP"]]],
  ["A JSON value is kept", [["earthquakes.test.ts", "byte for byte"]]],
  [
    "One process that holds",
    [["busy.test.ts", "while another process holds the write lock nothing acknowledged is lost"]],
  ],
  [
    "At least once:",
    [
      ["groups/rebalance.test.ts", "loses nothing and gives nothing to two"],
      ["core/session/records.test.ts", "has the end of a frame committed before it is sent"],
      ["simulation/simulation.test.ts", "seeds lose nothing, mix nothing up and come to rest"],
    ],
  ],
  [
    "A batch or transaction that its",
    [
      ["exactly-once/lost-replies.test.ts", "each record is stored once, and its repeat is told where"],
      ["exactly-once/kill.test.ts", "are each written once, in order, all of it"],
      [
        "exactly-once/servers.test.ts",
        "any takes the next sequence, and any answers one that another has written",
      ],
    ],
  ],
  [
    "A transaction is written whole",
    [
      ["exactly-once/visibility.test.ts", "a snapshot of the database holds all, its commit too, or nothing"],
      ["exactly-once/visibility.test.ts", "that is refused nobody sees anything"],
      ["exactly-once/alerts.test.ts", "every quake above magnitude 4 is one alert"],
      ["exactly-once/servers.test.ts", "each record is transformed and produced once"],
    ],
  ],
  [
    "What `INSERT INTO commit_offset`",
    [
      ["sql/exactly-once.test.ts", "results and offset are committed together and once"],
      ["sql/exactly-once.test.ts", "a record that is refused takes the application's row back"],
      ["sql/page.test.ts", "consume into a table, killed again and again: each record once"],
    ],
  ],
  [
    "An append with `expect`",
    [
      ["exactly-once/servers.test.ts", "one writes of all that expect the same end"],
      ["exactly-once/event-sourcing.test.ts", "an account is never overdrawn"],
    ],
  ],
  [
    "A topic with a schema",
    [
      ["http/schemas.test.ts", "refuses the batch, names the record, the place and the rule"],
      ["stream/transact.test.ts", "holds the records against the new one, though it remembers the old"],
      ["stream/transact.test.ts", "never writes what the schema forbids that was set before the write"],
    ],
  ],
  [
    "A consumer that never",
    [
      [
        "core/session/records.test.ts",
        "that is full of records stops reading until an accepted ack frees as many",
      ],
    ],
  ],
  [
    "A partition has one owner",
    [
      [
        "groups/fencing.test.ts",
        "an owner that comes back after a takeover is refused its transaction whole",
      ],
      [
        "sql/exactly-once.test.ts",
        "what a consumer has processed whose membership was taken over counts for nothing",
      ],
      ["simulation/simulation.test.ts", "seeds lose nothing, mix nothing up and come to rest"],
    ],
  ],
  ["Committed offsets go forward", [["store/commits.test.ts", "agrees with a map that only goes forward"]]],
  [
    "Retention takes nothing that is younger",
    [
      ["store/retention.test.ts", "goes, and nothing younger"],
      [
        "store/retention.test.ts",
        "Appends, trims, changes of limits, time, retention and compaction in any order",
      ],
      ["store/compaction.test.ts", "the newest record of each key stays, at its offset, in each partition"],
      ["store/compaction.test.ts", "takes what was there with it, stays for its time, then goes"],
      ["log-life.test.ts", "by age takes what was appended long enough ago, whatever its timestamp says"],
      ["log-life.test.ts", "by records leaves the newest, and a consumer below is told"],
      ["log-life.test.ts", "gives who joins at its start the latest of every network, where it always was"],
    ],
  ],
  ["The room that was freed", [["log-life.test.ts", "is used again by what comes next, and given back"]]],
];

const OF_PRODUCERS: Promises = [
  [
    "The next sequence is written",
    [["http/transactions.test.ts", "that is the next one is written, with an answer like any other's"]],
  ],
  [
    "One of the last 16",
    [
      ["http/transactions.test.ts", "is answered with its runs while it is one of the last"],
      ["http/transactions.test.ts", "that was written is not judged by what it says now"],
      ["http/transactions.test.ts", "that was written is answered as then although the topic is gone"],
    ],
  ],
  ["An older one is answered", [["http/transactions.test.ts", "and with none of them after"]]],
  [
    "A later one is `sequence_gap`",
    [
      [
        "http/transactions.test.ts",
        "that leaves one out is sequence_gap, names the next one, and writes nothing",
      ],
    ],
  ],
  [
    "An older epoch is",
    [
      ["http/transactions.test.ts", "that is older is fenced_producer"],
      ["http/transactions.test.ts", "that is newer starts at 0, and fences those before it"],
    ],
  ],
  [
    "An id that is unknown",
    [
      ["http/transactions.test.ts", "of an id that is unknown starts at 0, and at no other"],
      ["http/transactions.test.ts", "of an id that has written nothing for seven days starts at 0 again"],
    ],
  ],
  [
    "What is refused, whatever the code",
    [["http/transactions.test.ts", "that was refused leaves its sequence to the next attempt"]],
  ],
];

const OF_TRANSACTIONS: Promises = [
  [
    "`appends`:",
    [
      ["http/transactions.test.ts", "folds what follows itself in one partition into one run"],
      ["http/transactions.test.ts", "that neither appends nor commits is bad_request"],
      ["http/transactions.test.ts", "may have 10,000 records in several appends"],
      ["http/transactions.test.ts", "may append to 1,024 partitions"],
    ],
  ],
  [
    "`commits`:",
    [
      ["http/transactions.test.ts", "that commits above the log end is offset_out_of_range"],
      ["http/transactions.test.ts", "that is sent again without a producer appends nothing twice"],
      ["http/transactions.test.ts", "that commits for a partition that nobody owns is fenced"],
      ["http/transactions.test.ts", "may commit beyond what was sent, up to the log end"],
      ["groups/fencing.test.ts", "is refused its transaction whole"],
    ],
  ],
  [
    "A [producer](#producers) makes it",
    [
      [
        "http/transactions.test.ts",
        "with a producer is found before its commits and expectations are judged",
      ],
    ],
  ],
  [
    "Of one partition's records send",
    [["stream/transaction-conversations.test.ts", "and produce are written in the order of the frames"]],
  ],
  [
    "Where topics come into being on first use, one",
    [["http/transactions.test.ts", "creates the topics that are not there where first use does"]],
  ],
];

/** Prose: sentences by their beginnings. */
const SENTENCES: Promises = [
  [
    "Whoever goes on in an older one is fenced",
    [["exactly-once/servers.test.ts", "every one fences the older epoch"]],
  ],
  [
    "The first epoch that it gives is 1",
    [["http/transactions.test.ts", "that is given fences whoever started at 0 without asking"]],
  ],
  [
    "nothing is written\nunless each of these partitions ends exactly there",
    [
      ["http/transactions.test.ts", "lets one of many write that have all read to the same end"],
      ["http/transactions.test.ts", "of several that are not met is answered for the first of them"],
    ],
  ],
  [
    "A partition that does not exist is `unknown_partition`",
    [
      ["http/transactions.test.ts", "of a partition that does not exist is unknown_partition"],
      ["http/transactions.test.ts", "in a topic that does not exist is unknown_topic"],
    ],
  ],
  [
    "nothing of it is visible to any reader before all of it is on disk",
    [["exactly-once/visibility.test.ts", "a snapshot of the database holds all, its commit too, or nothing"]],
  ],
  [
    "What it commits counts as acknowledged on the subscription of this socket",
    [
      ["stream/transaction-conversations.test.ts", "in part frees that part of the window"],
      ["stream/transaction-conversations.test.ts", "for a subscription frees no other one's window"],
    ],
  ],
  [
    "Records that are there stay as they are",
    [["http/schemas.test.ts", "leaves the records that are there as they are"]],
  ],
  ["`null` removes it", [["http/schemas.test.ts", "and removes it with null"]]],
  [
    "A record with\n`bytes` has no JSON value",
    [["http/schemas.test.ts", "is one with bytes, and a tombstone"]],
  ],
  ["| a batch that its producer sends again |", [["exactly-once/lost-replies.test.ts", "stored once"]]],
  ["| consume, transform, produce |", [["exactly-once/alerts.test.ts", "is one alert"]]],
  [
    "| consume, and write to tables of one's own",
    [["sql/exactly-once.test.ts", "results and offset are committed together and once"]],
  ],
  [
    "| write to one's own tables, and produce",
    [
      [
        "sql/exactly-once.test.ts",
        "what an application appends reaches a consumer that waits, together with its own row",
      ],
    ],
  ],
];

const readme = readFileSync(join(REPOSITORY, "README.md"), "utf8");
const protocol = readFileSync(join(REPOSITORY, "PROTOCOL.md"), "utf8");

function sectionOf(page: string, heading: string): string {
  const start = page.indexOf(`\n${heading}\n`);
  expect(start).toBeGreaterThan(-1);
  const end = page.slice(start + heading.length + 1).search(/\n##/);
  return page.slice(start, end === -1 ? undefined : start + heading.length + 1 + end);
}

describe.each([
  ["README.md promises", readme, "## What it promises today", README],
  ["PROTOCOL.md says of producers", protocol, "### Producers", OF_PRODUCERS],
  ["PROTOCOL.md says of transactions", protocol, "### Transactions", OF_TRANSACTIONS],
] as const)("what %s", (_, page, heading, promises) => {
  test("is all here, and nothing else", () => {
    const items = sectionOf(page, heading)
      .split("\n")
      .flatMap((line) => /^- (.*)/.exec(line)?.[1] ?? []);
    const unknown = items.filter((item) => !promises.some(([beginning]) => item.startsWith(beginning)));
    expect(unknown).toEqual([]);
    expect(items).toHaveLength(promises.length);
  });

  test.each(promises)("is tested: %s", (_, tests) => {
    expect(lostOf(tests)).toEqual([]);
  });
});

test.each(SENTENCES)("PROTOCOL.md has the sentence, and it is tested: %j", (beginning, tests) => {
  expect(protocol).toContain(beginning);
  expect(lostOf(tests)).toEqual([]);
});

/** Those that are not there. */
function lostOf(tests: Tests): Tests {
  return tests.filter(([file, name]) => !readFileSync(join(REPOSITORY, "test", file), "utf8").includes(name));
}
