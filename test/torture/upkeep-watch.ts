// Watches what upkeep does to the topics with a life, and says in the end what was wrong with it.

import * as v from "valibot";
import { findCompactionFaults } from "../life/compaction-rules.ts";
import { lookOverHttp } from "../life/http-look.ts";
import { KeyedJournal } from "../life/keyed-sends.ts";
import { keyedRecord, type Look } from "../life/looks.ts";
import { findRetentionFaults } from "../life/retention-rules.ts";
import { COMPACTED, LIMITS, RETAINED } from "../life/topics.ts";
import type { Sight } from "./sight.ts";

const WITH_LIFE = [...RETAINED, COMPACTED.topic].map((topic) => `'${topic}'`).join(", ");

const BOUNDS = `
  SELECT t.topic, p.partition, p.log_start_offset AS logStartOffset, p.log_end_offset AS logEndOffset
  FROM partitions AS p JOIN topics AS t ON t.topic_id = p.topic_id WHERE t.topic IN (${WITH_LIFE})`;
const RECORDS = `
  SELECT p.partition, r.offset, r.key, r.value, r.headers
  FROM records AS r JOIN partitions AS p ON p.partition_id = r.partition_id
  JOIN topics AS t ON t.topic_id = p.topic_id
  WHERE t.topic = '${COMPACTED.topic}' ORDER BY p.partition, r.offset`;

const BoundsRow = v.object({
  topic: v.string(),
  partition: v.number(),
  logStartOffset: v.number(),
  logEndOffset: v.number(),
});
const RecordRow = v.object({
  partition: v.number(),
  offset: v.number(),
  key: v.nullable(v.string()),
  value: v.string(),
  headers: v.nullable(v.string()),
});

const PARTITIONS_WITH_LIFE = `
  (SELECT * FROM partitions WHERE topic_id IN (SELECT topic_id FROM topics WHERE topic IN (${WITH_LIFE})))`;

/** What must hold at any moment, also when a server was killed in the one before; each row that comes back is wrong. */
const RULES: Readonly<Record<string, string>> = {
  "trim_steps outlives its transaction": "SELECT * FROM trim_steps",
  "superseded outlives its transaction": "SELECT * FROM superseded",
  "guard outlives its transaction": "SELECT op FROM guard",
  "counters are not what the records say": `
    SELECT p.partition_id, p.records, p.bytes, p.log_start_offset, count(r.offset) AS found, min(r.offset) AS first,
           coalesce(sum(octet_length(r.value) + coalesce(octet_length(r.key), 0)
                        + coalesce(octet_length(r.headers), 0)), 0) AS found_bytes
    FROM ${PARTITIONS_WITH_LIFE} AS p LEFT JOIN records AS r ON r.partition_id = p.partition_id
    GROUP BY p.partition_id
    HAVING p.records <> found OR p.bytes <> found_bytes OR first < p.log_start_offset`,
  "what compaction knows is not there": `
    SELECT k.* FROM compacted_keys AS k
    LEFT JOIN records AS r ON r.partition_id = k.partition_id AND r.offset = k.offset AND r.key = k.key
    WHERE r.offset IS NULL`,
};

/** Partitions that want something done, and servers that are about to do it. */
const COUNT_LEFT = `
  SELECT (SELECT count(*) FROM partitions AS p JOIN topics AS t ON t.topic_id = p.topic_id
          WHERE p.records > t.retention_records OR t.retention_ms IS NOT NULL AND p.records > 0
             OR t.cleanup = 'compact' AND p.records > 0
                AND NOT EXISTS (SELECT 1 FROM compactions AS d
                                WHERE d.partition_id = p.partition_id AND d.compacted_to = p.log_end_offset))
       + (SELECT count(*) FROM compacted_keys AS k JOIN partitions AS p ON p.partition_id = k.partition_id
          WHERE k.tombstone_at IS NOT NULL AND k.offset < p.log_end_offset - 1)
       + (SELECT count(*) FROM upkeep_lease WHERE expires_at > (SELECT now_ms FROM clock)) AS n`;

export class UpkeepWatch {
  readonly journal = new KeyedJournal();
  readonly #looks: Look[] = [];
  readonly #broken = new Set<string>();

  /** Rejects where the database cannot be read now. */
  async look(sight: Sight, { isAtRest = false } = {}): Promise<void> {
    const fromMs = Date.now();
    const [bounds, records, ...broken] = await sight.rows(BOUNDS, RECORDS, ...Object.values(RULES));
    const atMs = Date.now();
    const all = v.parse(v.array(BoundsRow), bounds);
    const seen = v.parse(v.array(RecordRow), records);
    const isRetained = ({ topic }: v.InferOutput<typeof BoundsRow>) => RETAINED.includes(topic);
    this.#looks.push({
      ...{ fromMs, atMs, isAtRest, retained: all.filter(isRetained) },
      compacted: all
        .filter((log) => !isRetained(log))
        .map((log) => ({
          ...log,
          records: seen.filter(({ partition }) => partition === log.partition).map(seenRecord),
        })),
    });
    for (const [index, says] of Object.keys(RULES).entries())
      for (const row of broken[index] ?? []) this.#broken.add(`${says}: ${JSON.stringify(row)}`);
  }

  /** At rest, as any reader sees it. */
  async lookOverHttp(url: string): Promise<void> {
    this.#looks.push(await lookOverHttp(url, { isAtRest: true }));
  }

  /** 0 when everything is done. */
  async countLeft(sight: Sight): Promise<number> {
    const [rows] = await sight.rows(COUNT_LEFT);
    return Number(rows?.[0]?.n);
  }

  findFaults(): readonly string[] {
    const { sent, problems } = this.journal;
    const { tombstoneMs } = COMPACTED.compaction;
    return [
      ...this.#broken,
      ...problems,
      ...findRetentionFaults(this.#looks, LIMITS),
      ...findCompactionFaults({ sent, looks: this.#looks, tombstoneMs }),
    ];
  }

  /** What there was to see of it. */
  get summary(): string {
    const last = this.#looks.at(-1);
    const gone = (last?.retained ?? []).reduce((sum, { logStartOffset }) => sum + logStartOffset, 0);
    const compacted = (last?.compacted ?? []).reduce(
      (sum, { logEndOffset, records }) => sum + logEndOffset - records.length,
      0,
    );
    return `${this.#looks.length} looks at upkeep, which has taken ${gone} records by retention, ${compacted} by compaction`;
  }
}

function seenRecord({ offset, key, value, headers }: v.InferOutput<typeof RecordRow>) {
  const record = { key, value: JSON.parse(value), headers: headers === null ? null : JSON.parse(headers) };
  return { offset, ...keyedRecord(record) };
}
