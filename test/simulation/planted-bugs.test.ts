// What the simulation is worth: bugs are planted into a copy of the sources, one at a time, each of the kind that a
// hurried change would make, and the simulation has to find each in a thousand seeds, under the right name.

import { expect, test } from "bun:test";
import { join } from "node:path";
import type { AnomalyName } from "../proof/checker.ts";
import { breakSources, type Replacement } from "../support/broken-sources.ts";
import { describeLong } from "../support/long.ts";

/** The rarest needs some three hundred; which ones, changes with everything that is changed in the simulation. */
const SEEDS = 1_000;
const TEST_TIMEOUT_MS = 600_000;

interface PlantedBug extends Replacement {
  readonly name: string;
  /** Any of these. */
  readonly foundAs: readonly (AnomalyName | "not settled" | "counters")[];
}

const BUGS: readonly PlantedBug[] = [
  {
    name: "an ack is not held against the owner's generation",
    file: "src/store/commits.ts",
    from: "WHERE ack.value ->> 5 AND a.generation = ack.value ->> 2 AND",
    to: "WHERE ack.value ->> 5 AND",
    foundAs: ["undelivered below committed", "commit past delivered", "stale commit accepted"],
  },
  {
    name: "appends that are written together change places",
    file: "src/store/appends.ts",
    from: "pieces: piecesOf(all.flatMap(({ pieces })",
    to: "pieces: piecesOf(all.toReversed().flatMap(({ pieces })",
    foundAs: ["value changed"],
  },
  {
    name: "a commit may go back",
    file: "src/store/commits.ts",
    from: "WHERE excluded.committed_offset > committed_offsets.committed_offset`",
    to: "`",
    foundAs: ["commit went back"],
  },
  {
    name: "a transaction commits whoever owns the partition",
    file: "src/store/commits.ts",
    from: "WHERE NOT coalesce(a.generation = ack.value ->> 2\n                     AND ack.value",
    to: "WHERE NOT coalesce(ack.value",
    // Where nobody owns it the records are written and the commit is not.
    foundAs: ["stale commit accepted", "undelivered below committed", "processed twice", "commit went back"],
  },
  {
    name: "a write without an answer is sent again as another one",
    file: "src/store/remote.ts",
    from: "SET number = CASE WHEN number < excluded.number THEN excluded.number END,",
    to: "SET number = excluded.number,",
    foundAs: ["duplicate", "aborted read"],
  },
  {
    name: "a producer's sequence is counted and not judged",
    file: "src/store/transactions.ts",
    from: "if (producer) conditions.push(IS_NEXT_SEQUENCE);",
    to: "",
    foundAs: ["duplicate"],
  },
  {
    name: "who gets a partition goes on in the generation of before",
    file: "src/store/groups.ts",
    from: "SET member_id = excluded.member_id, generation = excluded.generation, reset",
    to: "SET member_id = excluded.member_id, reset",
    foundAs: ["split ownership"],
  },
  {
    name: "a wake-up is lost when the log has grown between the read and the wait",
    file: "src/stream/wake-ups.ts",
    from: "this.notifyGone(waitedFor.filter((partitionId) => !logEnds.has(partitionId)));",
    to: "return false;",
    foundAs: ["not settled"],
  },
  {
    name: "a position begins one record late",
    file: "src/core/session/assigned.ts",
    from: "const position = partition.unplaced ? null : partition.committedOffset;",
    to: "const position = partition.unplaced ? null : (partition.committedOffset ?? 0) + 1;",
    foundAs: ["reset started at the wrong place"],
  },
  {
    name: "what was read before a revocation is sent after it",
    file: "src/core/session/rebalance.ts",
    from: "partition.run += 1; // what is being read of it is void",
    to: "",
    foundAs: ["split ownership"],
  },
  {
    name: "a failed COMMIT of a file is taken for one that wrote nothing",
    file: "src/store/db.ts",
    from: 'case "unknown":\n      return new Problem(\n        "outcome_unknown",',
    to: 'case "unknown":\n      return new Problem(\n        "unavailable",',
    foundAs: ["aborted read"],
  },
  {
    name: "nobody carries a revoke deadline out",
    file: "src/stream/group-clock.ts",
    from: "if (due.groups.length > 0) this.#deps.onDue(due.groups);",
    to: "",
    foundAs: ["not settled"],
  },
  {
    // In 22 of the first 60 seeds.
    name: "compaction keeps the oldest of a step's records, not the newest",
    file: "src/store/compaction.ts",
    from: "(SELECT r.key, max(r.offset) AS offset",
    to: "(SELECT r.key, min(r.offset) AS offset",
    foundAs: ["lost newest of a key", "lost last record"],
  },
  {
    // In 21.
    name: "compaction forgets the counters",
    file: "src/store/compaction.ts",
    from: "{ sql: NOTE_SUPERSEDED, args },\n    { sql: TAKE_FROM_COUNTERS, args },",
    to: "{ sql: NOTE_SUPERSEDED, args },",
    foundAs: ["counters"],
  },
  {
    // In 11.
    name: "all goes that was ever noted, where something is old enough",
    file: "src/store/retention.ts",
    from: "= partitions.partition_id AND a.at <= c.now_ms - (SELECT",
    to: "= partitions.partition_id AND a.at <= c.now_ms AND (SELECT",
    foundAs: ["kept too little"],
  },
  {
    // In 8.
    name: "retention deletes one record too many",
    file: "src/store/retention.ts",
    from: "(SELECT p.records - t.retention_records ",
    to: "(SELECT p.records - t.retention_records + 1 ",
    foundAs: ["kept too little"],
  },
  {
    // In 7.
    name: "compaction does not wait for `minLagMs`",
    file: "src/store/compaction.ts",
    from: "CASE WHEN t.compaction_min_lag_ms > 0",
    to: "CASE WHEN false",
    foundAs: ["deleted too early"],
  },
  {
    // In 4.
    name: "nobody asks for keys where a topic is compacted",
    file: "src/stream/transact.ts",
    from: "if (topic?.isCompacted) requireKeys(wanted.records, wanted);",
    to: "",
    foundAs: ["keyless in a compacted log"],
  },
  {
    // In 1.
    name: "an old tombstone goes, though it is the last record",
    file: "src/store/compaction.ts",
    from: "AND k.offset < p.log_end_offset - 1\n    AND k.tombstone_at <= c.now_ms - coalesce(t.",
    to: "AND k.tombstone_at <= c.now_ms - coalesce(t.",
    foundAs: ["lost last record"],
  },
  {
    // In 1.
    name: "a group that was used again expires by its first idle time",
    file: "src/store/expiry.ts",
    from: "AND i.version = g.version",
    to: "",
    foundAs: ["group expired in use"],
  },
];

describeLong("the simulation", "runs some thousand seeds", () => {
  for (const bug of BUGS) {
    test(
      `finds that ${bug.name}`,
      () => {
        using copy = breakSources([bug], { parts: ["test"] });
        const report = simulate(copy.repository);
        console.log(`${bug.name}: ${report.split("\n").at(-2)}`);
        expect(bug.foundAs.filter((name) => report.includes(`  ${name}`))).not.toEqual([]);
      },
      TEST_TIMEOUT_MS,
    );
  }
});

/** Until the first seed that fails. */
function simulate(repository: string): string {
  const path = join(repository, "test/simulation/simulate.ts");
  const { stdout } = Bun.spawnSync(
    [process.execPath, path, "--seeds", String(SEEDS), "--jobs", "1", "--first"],
    {
      stderr: "ignore",
    },
  );
  return stdout.toString();
}
