// What a server of schema version 1 left in a file: its migration as it was released, and topic "orders".

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "./server.ts";

const SCHEMA = readFileSync(join(REPOSITORY, "migrations/0001_log.sql"), "utf8");
const VERSION = `
  CREATE TABLE tidemark_migrations (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL) STRICT;
  INSERT INTO tidemark_migrations VALUES (1, '2026-01-01T00:00:00.000Z');`;

/** A record for each timestamp, its offset as its value. Partition 0 comes with the schema and is the first. */
export function versionOneSql({
  partition,
  timestamps,
}: {
  readonly partition: number;
  readonly timestamps: readonly number[];
}): string {
  const partitionId = partition + 1;
  const rows = timestamps.map(
    (timestamp, offset) => `(${partitionId}, ${offset}, ${timestamp}, '${offset}')`,
  );
  const bytes = timestamps.reduce((sum, _, offset) => sum + String(offset).length, 0);
  return `
    ${partition === 0 ? `${VERSION}\n${SCHEMA}\nINSERT INTO topics VALUES (1, 'orders', 1, 0);` : ""}
    INSERT INTO partitions (partition_id, topic_id, partition, log_end_offset, records, bytes, frame_bytes_max)
    VALUES (${partitionId}, 1, ${partition}, ${rows.length}, ${rows.length}, ${bytes}, 200);
    INSERT INTO records (partition_id, offset, timestamp, value) VALUES ${rows.join(",")};
    UPDATE topics SET partition_count = ${partition + 1};`;
}
