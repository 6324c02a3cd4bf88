// Looks at the database as anybody may, and writes into the history what it has.

import type { EventOf, SeenGroup, SeenLog, SeenRecord, TopicSettings } from "../proof/history.ts";
import type { SimulatedDatabase } from "./database.ts";

const LOGS = `
  SELECT t.topic, t.topic_id AS topicId, p.partition, p.log_start_offset AS logStartOffset,
         p.log_end_offset AS logEndOffset, p.partition_id AS partitionId, s.records, s.bytes
  FROM partitions AS p JOIN topics AS t USING (topic_id) JOIN partition_stats AS s USING (topic, partition)
  ORDER BY t.topic_id, p.partition`;

const SETTINGS = `
  SELECT topic_id AS topicId, retention_ms AS retentionMs, retention_bytes AS retentionBytes,
         retention_records AS retentionRecords, cleanup = 'compact' AS isCompacted,
         compaction_min_lag_ms AS minLagMs, compaction_tombstone_ms AS tombstoneMs, cleanup_version AS cleanupVersion
  FROM topics
  WHERE coalesce(retention_ms, retention_bytes, retention_records, compaction_min_lag_ms, compaction_tombstone_ms)
          IS NOT NULL OR cleanup_version > 0
  ORDER BY topic_id`;

const GROUPS = `
  SELECT g.group_id AS "group", g.created_at AS createdAt, g.version,
         coalesce((SELECT max(l.expires_at) FROM member_leases AS l WHERE l.group_id = g.group_id), 0) AS aliveUntilMs
  FROM groups AS g ORDER BY g.group_id`;

const COMMITTED = `
  SELECT c.group_id AS "group", t.topic, t.topic_id AS topicId, p.partition, c.committed_offset AS offset
  FROM committed_offsets AS c JOIN partitions AS p USING (partition_id) JOIN topics AS t USING (topic_id)
  ORDER BY c.group_id, t.topic_id, p.partition`;

const OWNERS = `
  SELECT a.group_id AS "group", t.topic, t.topic_id AS topicId, p.partition, a.generation
  FROM assignments AS a JOIN partitions AS p USING (partition_id) JOIN topics AS t USING (topic_id)
  ORDER BY a.group_id, t.topic_id, p.partition`;

const RESETS = `
  SELECT history_id, group_id AS "group", topic, partition, previous_offset AS previous, new_offset AS offset, cause
  FROM offset_history WHERE history_id > :after ORDER BY history_id`;

const VALUE = "coalesce(r.value ->> '$', r.headers ->> '$.name')";
const BYTES =
  "octet_length(r.value) + coalesce(octet_length(r.key), 0) + coalesce(octet_length(r.headers), 0)";

const RECORDS_FROM = `
  SELECT r.offset, ${VALUE} AS value, ${BYTES} AS bytes
  FROM records AS r WHERE r.partition_id = :partition_id AND r.offset >= :from ORDER BY r.offset`;

const OFFSETS = "SELECT offset FROM records WHERE partition_id = :partition_id ORDER BY offset";

const COUNTED = `
  SELECT count(*) AS records, coalesce(sum(${BYTES}), 0) AS bytes
  FROM topic_records AS r WHERE r.topic = :topic AND r.partition = :partition`;

// Of each partition what its topic does not keep: older records of a key, old tombstones, what is too much.
const NOT_KEPT = `
  SELECT 1 FROM topics AS t JOIN partitions AS p USING (topic_id)
  WHERE p.records > t.retention_records OR p.bytes > t.retention_bytes
    OR (t.retention_ms IS NOT NULL AND p.records > 0)
    OR (t.cleanup = 'compact' AND EXISTS (
      SELECT 1 FROM records AS r WHERE r.partition_id = p.partition_id AND r.offset < p.log_end_offset - 1
        AND ((r.value = 'null' AND t.compaction_tombstone_ms IS NOT NULL)
          OR EXISTS (SELECT 1 FROM records AS later WHERE later.partition_id = p.partition_id
                       AND later.offset > r.offset AND later.key = r.key))))`;

const SHARES = `
  SELECT (SELECT count(*) FROM assignments AS a JOIN partitions AS p USING (partition_id)
          JOIN topics AS t ON t.topic_id = p.topic_id
          WHERE a.group_id = m.group_id AND a.member_id = m.member_id AND t.topic = :topic) AS share
  FROM members AS m
  WHERE m.group_id = :group_id AND EXISTS (SELECT 1 FROM json_each(m.topics) WHERE value = :topic)`;

const REVOKING = "SELECT 1 FROM assignments WHERE group_id = :group_id AND revoke_deadline IS NOT NULL";

/** A partition, with what the tables and views say of it. */
interface LogRow extends SeenLog {
  readonly partitionId: number;
  readonly records: number;
  readonly bytes: number;
}

/** What was known of a partition at the last look. */
interface Known {
  readonly row: LogRow;
  /** Above the log start. */
  readonly gone: ReadonlySet<number>;
}

export class Watcher {
  readonly #database: SimulatedDatabase;
  #lastHistoryId = 0;
  #writesSeen = -1;
  #knownById = new Map<number, Known>();
  #disagreements: string[] = [];

  constructor(database: SimulatedDatabase) {
    this.#database = database;
  }

  /** Undefined where nothing was written since the last time. */
  look({ isForced = false } = {}): EventOf<"snapshot"> | undefined {
    if (this.#database.writes === this.#writesSeen && !isForced) return undefined;
    this.#writesSeen = this.#database.writes;
    const resets = this.#read<EventOf<"snapshot">["resets"][number] & { history_id: number }>(RESETS, {
      after: this.#lastHistoryId,
    });
    this.#lastHistoryId = resets.at(-1)?.history_id ?? this.#lastHistoryId;
    const rows = this.#read<LogRow>(LOGS);
    const logs = rows.map((row) => this.#lookAt(row));
    return {
      type: "snapshot",
      nowMs: this.#database.nowMs(),
      logs,
      settings: this.#read<TopicSettings>(SETTINGS).map((row) => ({
        ...row,
        isCompacted: !!row.isCompacted,
      })),
      groups: this.#read<SeenGroup>(GROUPS),
      committed: this.#read(COMMITTED),
      owners: this.#read(OWNERS),
      resets: resets.map(({ history_id, ...reset }) => reset),
    };
  }

  /** Since the last time: where counters and views said something else than the records. */
  disagreements(): readonly string[] {
    return this.#disagreements.splice(0);
  }

  /** Whatever the settings of the topics do not keep is gone. */
  isKeptAsSet(): boolean {
    return this.#read(NOT_KEPT).length === 0;
  }

  #lookAt(row: LogRow): SeenLog {
    const { partitionId, records, bytes, ...log } = row;
    const known = this.#knownById.get(partitionId);
    if (known && isSameRow(known.row, row)) return log;
    this.#compare(row);
    const from = Math.max(known?.row.logEndOffset ?? 0, log.logStartOffset);
    const appended =
      log.logEndOffset > from
        ? this.#read<SeenRecord & { bytes: number }>(RECORDS_FROM, { partition_id: partitionId, from })
        : [];
    const gone = this.#goneOf(row);
    this.#knownById.set(partitionId, { row, gone });
    const newlyGone = [...gone].filter((offset) => !known?.gone.has(offset));
    return {
      ...log,
      ...(appended.length > 0 && { appended }),
      ...(newlyGone.length > 0 && { gone: newlyGone }),
    };
  }

  #compare({ topic, partition, records, bytes }: LogRow): void {
    const [counted] = this.#read<{ records: number; bytes: number }>(COUNTED, { topic, partition });
    if (counted?.records === records && counted.bytes === bytes) return;
    const found = `${counted?.records} records of ${counted?.bytes} bytes`;
    this.#disagreements.push(
      `counters: ${topic}/${partition} has ${found}, counted are ${records} of ${bytes}`,
    );
  }

  #goneOf({ partitionId, logStartOffset, logEndOffset, records }: LogRow): ReadonlySet<number> {
    if (records === logEndOffset - logStartOffset) return new Set();
    const rows = this.#read<{ offset: number }>(OFFSETS, { partition_id: partitionId });
    const isThere = new Set(rows.map(({ offset }) => offset));
    const offsets = Array.from({ length: logEndOffset - logStartOffset }, (_, n) => logStartOffset + n);
    return new Set(offsets.filter((offset) => !isThere.has(offset)));
  }

  logs(): readonly EventOf<"log">[] {
    return this.#read<LogRow>(LOGS).map(({ partitionId, records, bytes, ...log }) => ({
      type: "log",
      ...log,
      records: this.#read<SeenRecord & { bytes: number }>(RECORDS_FROM, {
        partition_id: partitionId,
        from: 0,
      }).map(({ offset, value }) => ({ offset, value })),
    }));
  }

  /** Of a group, over its topics; null where nothing is committed somewhere. */
  lag(group: string, topics: readonly string[]): number | null {
    const lags = this.#read<{ topic: string; lag: number | null }>(
      "SELECT topic, lag FROM consumer_lag WHERE group_id = :group_id",
      { group_id: group },
    ).filter(({ topic }) => topics.includes(topic));
    if (lags.length === 0 || lags.some(({ lag }) => lag === null)) return null;
    return lags.reduce((sum, { lag }) => sum + (lag ?? 0), 0);
  }

  /** All partitions have owners that keep them, and no member has more than `spreadMax` of them more than another. */
  isAtRest({ group, topic, spreadMax }: { group: string; topic: string; spreadMax: number }): boolean {
    const args = { group_id: group };
    if (this.#read(REVOKING, args).length > 0) return false;
    const shares = this.#read<{ share: number }>(SHARES, { ...args, topic }).map(({ share }) => share);
    const partitions = this.#read<{ topic: string }>(LOGS).filter((log) => log.topic === topic).length;
    return (
      shares.reduce((sum, share) => sum + share, 0) === partitions &&
      Math.max(...shares) - Math.min(...shares) <= spreadMax
    );
  }

  #read<T>(sql: string, args: Record<string, string | number> = {}): readonly T[] {
    // The columns of a statement above are the members of what it is read as.
    return this.#database.rows(sql, args) as readonly unknown[] as readonly T[];
  }
}

function isSameRow(one: LogRow, other: LogRow): boolean {
  return (
    one.logStartOffset === other.logStartOffset &&
    one.logEndOffset === other.logEndOffset &&
    one.records === other.records &&
    one.bytes === other.bytes
  );
}
