// Looks at the database as anybody may, and writes into the history what it has.

import type { EventOf, SeenRecord } from "../proof/history.ts";
import type { SimulatedDatabase } from "./database.ts";

const LOGS = `
  SELECT t.topic, t.topic_id AS topicId, p.partition, p.log_start_offset AS logStartOffset,
         p.log_end_offset AS logEndOffset
  FROM partitions AS p JOIN topics AS t USING (topic_id) ORDER BY t.topic_id, p.partition`;

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

const RECORDS = `
  SELECT r.offset, r.value ->> '$' AS value
  FROM records AS r JOIN partitions AS p USING (partition_id)
  WHERE p.topic_id = :topic_id AND p.partition = :partition ORDER BY r.offset`;

const SHARES = `
  SELECT (SELECT count(*) FROM assignments AS a JOIN partitions AS p USING (partition_id)
          JOIN topics AS t ON t.topic_id = p.topic_id
          WHERE a.group_id = m.group_id AND a.member_id = m.member_id AND t.topic = :topic) AS share
  FROM members AS m
  WHERE m.group_id = :group_id AND EXISTS (SELECT 1 FROM json_each(m.topics) WHERE value = :topic)`;

const REVOKING = "SELECT 1 FROM assignments WHERE group_id = :group_id AND revoke_deadline IS NOT NULL";

export class Watcher {
  readonly #database: SimulatedDatabase;
  #lastHistoryId = 0;
  #writesSeen = -1;

  constructor(database: SimulatedDatabase) {
    this.#database = database;
  }

  /** Undefined where nothing was written since the last time. */
  look(): EventOf<"snapshot"> | undefined {
    if (this.#database.writes === this.#writesSeen) return undefined;
    this.#writesSeen = this.#database.writes;
    const resets = this.#read<EventOf<"snapshot">["resets"][number] & { history_id: number }>(RESETS, {
      after: this.#lastHistoryId,
    });
    this.#lastHistoryId = resets.at(-1)?.history_id ?? this.#lastHistoryId;
    return {
      type: "snapshot",
      logs: this.#read(LOGS),
      committed: this.#read(COMMITTED),
      owners: this.#read(OWNERS),
      resets: resets.map(({ history_id, ...reset }) => reset),
    };
  }

  logs(): readonly EventOf<"log">[] {
    return this.#read<EventOf<"snapshot">["logs"][number]>(LOGS).map((log) => ({
      type: "log",
      ...log,
      records: this.#read<SeenRecord>(RECORDS, { topic_id: log.topicId, partition: log.partition }),
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
