// Browser-safe. The bodies and answers of the HTTP interface as plain types, beside those that frames.ts has; schemas/ has
// their schemas, kept equal by the compiler and test/protocol/http.test.ts.

import type { AckedEntry, DeliveredRecord, Durability } from "./frames.ts";
import type { Place } from "./places.ts";

// ── topics ───────────────────────────────────────────────────────────────────────────────────────────────

/** `compact`: of every key the newest record stays. */
export type Cleanup = "delete" | "compact";

/** 2020-12, or draft-07 where `$schema` says so. */
export type JsonSchema = boolean | Readonly<Record<string, unknown>>;

/** PUT /v1/topics/:topic. Absent: as it is, or the default of a new topic; null: the default. */
export interface TopicSettings {
  /** 1 by default. Never fewer than there are. */
  readonly partitionCount?: number | null | undefined;
  /** No limit by default. */
  readonly retention?: RetentionSettings | null | undefined;
  /** `delete` by default. */
  readonly cleanup?: Cleanup | null | undefined;
  readonly compaction?: CompactionSettings | null | undefined;
  /** What values are allowed. None by default: any JSON, or bytes. */
  readonly schema?: JsonSchema | null | undefined;
}

/** Most that is kept of each partition: the oldest records go. */
export interface RetentionSettings {
  /** ms since the append. */
  readonly ms?: number | null | undefined;
  /** Of keys, headers and values. */
  readonly bytes?: number | null | undefined;
  readonly records?: number | null | undefined;
}

export interface CompactionSettings {
  /** A record that was appended less than so many ms ago is left alone: 0 by default. */
  readonly minLagMs?: number | null | undefined;
  /** How many ms a tombstone stays: 86,400,000 by default. */
  readonly tombstoneMs?: number | null | undefined;
}

export interface TopicSummary {
  readonly topic: string;
  /** Never given again: a topic that is deleted and created again is another one. */
  readonly topicId: number;
  readonly partitionCount: number;
}

/** GET /v1/topics */
export interface TopicList {
  readonly topics: readonly TopicSummary[];
}

/** GET and PUT /v1/topics/:topic */
export interface TopicDescription extends TopicSummary {
  readonly partitions: readonly PartitionDescription[];
  /** What was set of it; null: nothing, there is no limit. */
  readonly retention: SetOf<RetentionSettings> | null;
  readonly cleanup: Cleanup;
  /** What was set of it; null: nothing, the defaults hold. */
  readonly compaction: SetOf<CompactionSettings> | null;
  readonly schema: JsonSchema | null;
  /** ms since 1970 */
  readonly createdAt: number;
}

type SetOf<Settings> = { readonly [K in keyof Settings]: Exclude<Settings[K], null> };

export interface PartitionDescription {
  readonly partition: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  readonly records: number;
  /** Of keys, headers and values. */
  readonly bytes: number;
}

/** DELETE /v1/topics/:topic/partitions/:partition/records: what is left. */
export interface PartitionBounds {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

/** GET /v1/topics/:topic/partitions/:partition/records */
export interface Fetched {
  readonly topicId: number;
  readonly records: readonly DeliveredRecord[];
  /** Where to read on. */
  readonly next: number;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

// ── groups ───────────────────────────────────────────────────────────────────────────────────────────────

export interface GroupSummary {
  readonly group: string;
  /** How many are alive. */
  readonly members: number;
  /** Over all partitions; null where nothing is committed at all. */
  readonly lag: number | null;
}

/** GET /v1/groups */
export interface GroupList {
  readonly groups: readonly GroupSummary[];
}

/** GET /v1/groups/:group */
export interface GroupDescription {
  readonly group: string;
  readonly members: readonly MemberDescription[];
  readonly offsets: readonly OffsetDescription[];
}

export interface MemberDescription {
  readonly memberId: string;
  readonly instanceId: string | null;
  readonly topics: readonly string[];
  readonly partitions: readonly {
    readonly topic: string;
    readonly partition: number;
    readonly generation: number;
  }[];
  /** ms since 1970, on the database's clock */
  readonly leaseExpiresAt: number;
}

/** One for every partition of every topic that the group subscribes to or has committed. */
export interface OffsetDescription {
  readonly topic: string;
  readonly partition: number;
  readonly committedOffset: number | null;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  readonly lag: number | null;
  /** The owner; null while nobody is. */
  readonly memberId: string | null;
  readonly metadata: string | null;
  /** ms since 1970 */
  readonly committedAt: number | null;
}

/** POST /v1/groups/:group/offsets */
export interface GroupOffsets {
  readonly offsets: readonly OutsideCommit[];
}

export interface OutsideCommit {
  readonly topic: string;
  readonly partition: number;
  /** The next offset to be processed. */
  readonly offset: number;
  /** At most 4,096 bytes. */
  readonly metadata?: string | undefined;
}

export interface CommittedOffsets {
  readonly offsets: readonly AckedEntry[];
}

/** POST /v1/groups/:group/reset */
export type GroupReset = ResetToPlace | ResetByPlan;

export interface ResetToPlace extends ResetOptions {
  readonly topics: readonly ResetTopic[];
  readonly to: Place;
}

/** Exactly so, or a `conflict` where `from` is no longer the committed offset. */
export interface ResetByPlan extends ResetOptions {
  readonly plan: readonly PlannedStep[];
}

interface ResetOptions {
  /** Nothing is done: the answer says what would be. */
  readonly dryRun?: boolean | undefined;
  /** For the history of the group. At most 4,096 bytes. */
  readonly reason?: string | undefined;
}

export interface ResetTopic {
  readonly topic: string;
  /** Absent: all of the topic. */
  readonly partitions?: readonly number[] | undefined;
}

export interface PlannedStep {
  readonly topic: string;
  readonly partition: number;
  /** The committed offset; null where there is none. */
  readonly from: number | null;
  readonly to: number;
}

export interface ResetPlan {
  readonly plan: readonly PlannedStep[];
  /** False after a dry run. */
  readonly applied: boolean;
}

// ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────

/** POST /v1/producers/:id: its sequences start at 0. */
export interface ProducerEpoch {
  readonly id: string;
  readonly epoch: number;
}

/** GET /readyz */
export interface Readiness {
  readonly status: "ready";
  readonly durability: Durability;
  /** Of the database. */
  readonly schemaVersion: number;
}
