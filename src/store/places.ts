// Looks up what a place depends on: the bounds of the log, the committed offset, a time. Nothing is written here.

import type { PlaceFacts, TimePlace } from "../core/places.ts";
import { timeOf } from "../core/places.ts";
import type { Place, ResetPolicy } from "../protocol/places.ts";
import { type Db, numberColumn } from "./db.ts";
import { findOffsetsAtTimes } from "./time-index.ts";

const READ_CLOCK = "SELECT now_ms FROM clock";

const READ_PARTITION = `
  SELECT p.log_start_offset, p.log_end_offset, c.committed_offset, c.metadata
  FROM partitions AS p
  LEFT JOIN committed_offsets AS c ON c.group_id = :group_id AND c.partition_id = p.partition_id
  WHERE p.partition_id = :partition_id`;

export interface LocateRequest {
  readonly partitionId: number;
  /** Whose committed offset; undefined for a reader. */
  readonly group: string | undefined;
  readonly place: Place | ResetPolicy;
}

export interface LocatedPartition extends PlaceFacts {
  readonly metadata: string | null;
}

/** What the place depends on, for core/places.ts to resolve. Undefined where the partition is gone. */
export async function readPlaceFacts(
  db: Db,
  { partitionId, group, place }: LocateRequest,
): Promise<LocatedPartition | undefined> {
  const time = timeOf(place);
  const offsets = time ? await findOffsetsAt(db, [{ partitionId, place: time }]) : undefined;
  const args = { partition_id: partitionId, group_id: group ?? null };
  const [row] = await db.read({ sql: READ_PARTITION, args });
  if (!row) return undefined;
  return {
    logStartOffset: numberColumn(row, "log_start_offset"),
    logEndOffset: numberColumn(row, "log_end_offset"),
    committedOffset: typeof row.committed_offset === "number" ? row.committed_offset : null,
    metadata: typeof row.metadata === "string" ? row.metadata : null,
    offsetAtTime: offsets?.get(partitionId),
  };
}

/** By partition id; one that is gone is left out. All of them at the same moment of the database's clock. */
export async function findOffsetsAt(
  db: Db,
  wanted: readonly { readonly partitionId: number; readonly place: TimePlace }[],
): Promise<ReadonlyMap<number, number>> {
  if (wanted.length === 0) return new Map();
  const [row] = await db.read({ sql: READ_CLOCK });
  const nowMs = numberColumn(row, "now_ms");
  return findOffsetsAtTimes(
    db,
    wanted.map(({ partitionId, place }) => ({
      partitionId,
      timestamp: "ago" in place ? Math.max(0, nowMs - place.ago) : place.timestamp,
    })),
  );
}
