// A history: what happened to a log, as its clients saw it and as the database has it, in the order of the seeing. The
// simulator and the runner of real processes write histories, the checker judges them. One event is one line of JSON.
//
// Every value that is sent is sent in one send only, so a value names its record wherever it is seen. What a client
// does (`send`, `acking`) is written down before it does it, and what it learns after it has learned it: so whatever
// stands between the two may have been before or after the deed, and everything else may not.

/** Where a record is: a topic that is created again is another one. */
export interface LogRef {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
}

/** Text, unique over the whole history. */
export type Value = string;

export interface SeenRecord {
  readonly offset: number;
  readonly value: Value;
}

export interface OffsetEntry {
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  readonly offset: number;
}

// ── what producers do ────────────────────────────────────────────────────────────────────────────────────

/** One produce or transaction. What is repeated under one sequence is one send. Without `sent` or `not-sent` nobody knows. */
export interface SendEvent {
  readonly type: "send";
  readonly send: string;
  /** Its sends are in order: each begins when the one before is answered, or they have sequences. */
  readonly producer: string;
  /** Sent again with its sequence until it is answered: it is there once, whatever was lost. */
  readonly isIdempotent: boolean;
  readonly appends: readonly {
    readonly topic: string;
    readonly values: readonly Value[];
    /** Of each value its record's key, null for none. Not given: nobody knows. */
    readonly keys?: readonly (string | null)[];
    /** Those that stand for a record whose value is null: it carries their name elsewhere. */
    readonly tombstones?: readonly Value[];
    /** What each value was made of, e.g. `orders/0@5`. */
    readonly sources?: readonly string[];
  }[];
  readonly commits?: { readonly group: string; readonly offsets: readonly OffsetEntry[] };
}

/** Acknowledged. `runs` is empty where the server remembers only that it was done. */
export interface SentEvent {
  readonly type: "sent";
  readonly send: string;
  readonly runs: readonly {
    readonly topic: string;
    readonly partition: number;
    readonly offset: number;
    readonly count: number;
  }[];
}

/** Refused for good: it must never be seen. */
export interface NotSentEvent {
  readonly type: "not-sent";
  readonly send: string;
  readonly code: string;
}

// ── what consumers see ───────────────────────────────────────────────────────────────────────────────────

/** A subscription of its own: who comes back is another consumer. `group` null: a reader. */
export interface SubscribedEvent {
  readonly type: "subscribed";
  readonly consumer: string;
  readonly group: string | null;
  readonly memberId: string;
  /** `"ack":"none"`: what it is sent is committed before. */
  readonly isCommittedAhead: boolean;
}

export interface AssignedEvent {
  readonly type: "assigned";
  readonly consumer: string;
  readonly partitions: readonly (LogRef & {
    readonly generation: number;
    /** Null: a policy `none` waits for a place. */
    readonly position: number | null;
    readonly committedOffset: number | null;
    readonly logStartOffset: number;
    readonly logEndOffset: number;
    /** The policy that chose the position. */
    readonly reset?: string;
    /** The answer to a seek of this consumer. */
    readonly isSought?: boolean;
  })[];
}

/** One frame of records; in Kafka's words, one poll. */
export interface PolledEvent {
  readonly type: "polled";
  readonly consumer: string;
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  readonly records: readonly SeenRecord[];
  readonly next: number;
}

export interface RevokedEvent {
  readonly type: "revoked";
  readonly consumer: string;
  readonly partitions: readonly {
    readonly topic: string;
    readonly partition: number;
    readonly generation: number;
  }[];
}

export interface AckingEvent {
  readonly type: "acking";
  readonly consumer: string;
  readonly ack: string;
  readonly offsets: readonly OffsetEntry[];
}

export interface AckedEvent {
  readonly type: "acked";
  readonly ack: string;
  /** `offset`: the committed one. `code`: the entry was refused. */
  readonly offsets: readonly {
    readonly topic: string;
    readonly partition: number;
    readonly offset: number | null;
    readonly code?: string | undefined;
  }[];
}

/** The subscription is over: nothing more comes of it. */
export interface EndedEvent {
  readonly type: "ended";
  readonly consumer: string;
}

// ── what the database has ────────────────────────────────────────────────────────────────────────────────

/** One snapshot, by SQL. Each reset, and each record that has come or gone, stands in one snapshot only. */
export interface SnapshotEvent {
  readonly type: "snapshot";
  /** The database's clock, ms; where the next four are told. */
  readonly nowMs?: number;
  readonly logs: readonly SeenLog[];
  /** Of all topics that have, or had, other settings than the default ones. */
  readonly settings?: readonly TopicSettings[];
  /** All that there are. */
  readonly groups?: readonly SeenGroup[];
  readonly committed: readonly (LogRef & { readonly group: string; readonly offset: number })[];
  readonly owners: readonly (LogRef & { readonly group: string; readonly generation: number })[];
  readonly resets: readonly ResetRow[];
}

export interface SeenLog extends LogRef {
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  /** What has come since the last snapshot and is still there, with what it weighs. */
  readonly appended?: readonly (SeenRecord & { readonly bytes: number })[];
  /** Offsets above the log start that have no record since this snapshot. */
  readonly gone?: readonly number[];
}

/** Null: no limit, or the default. */
export interface KeepSettings {
  readonly retentionMs: number | null;
  readonly retentionBytes: number | null;
  readonly retentionRecords: number | null;
  readonly isCompacted: boolean;
  readonly minLagMs: number | null;
  readonly tombstoneMs: number | null;
}

export interface TopicSettings extends KeepSettings {
  readonly topicId: number;
  /** How often `isCompacted` has changed. */
  readonly cleanupVersion: number;
}

export interface SeenGroup {
  readonly group: string;
  /** Another one: it is not the group that it was. */
  readonly createdAt: number;
  /** Who joins or leaves gives it another one. */
  readonly version: number;
  /** When the last of its members' leases ends, by the database's clock; 0 without members. */
  readonly aliveUntilMs: number;
}

/** A row of `offset_history`. `previous` null: nothing was committed. */
export interface ResetRow {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly previous: number | null;
  readonly offset: number;
  readonly cause: string;
}

/** A commit from outside, asked for: what is below it need not be delivered. */
export interface PassingEvent {
  readonly type: "passing";
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

/** A trim, asked for. */
export interface TrimmingEvent {
  readonly type: "trimming";
  readonly topic: string;
  readonly partition: number;
  /** Records below it may go, from now on. */
  readonly before: number;
}

/** Other settings of a topic, asked for. Until it is answered nobody knows when they hold. */
export interface SettingEvent {
  readonly type: "setting";
  readonly setting: string;
  readonly topic: string;
  /** What is not named stays. */
  readonly to: Partial<KeepSettings>;
}

/** They hold, or were refused. */
export interface SetEvent {
  readonly type: "set";
  readonly setting: string;
}

/** How long groups without members stay: without it for ever. */
export interface GroupsExpireEvent {
  readonly type: "groups-expire";
  readonly idleMs: number;
}

/** All that a partition holds at the end. */
export interface LogEvent extends LogRef {
  readonly type: "log";
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  readonly records: readonly SeenRecord[];
}

/** Faults have ended, and everybody had the time to finish: these groups must have everything, acknowledged. */
export interface SettledEvent {
  readonly type: "settled";
  readonly groups: readonly { readonly group: string; readonly topics: readonly string[] }[];
}

export type HistoryEvent =
  | SendEvent
  | SentEvent
  | NotSentEvent
  | SubscribedEvent
  | AssignedEvent
  | PolledEvent
  | RevokedEvent
  | AckingEvent
  | AckedEvent
  | EndedEvent
  | SnapshotEvent
  | PassingEvent
  | TrimmingEvent
  | SettingEvent
  | SetEvent
  | GroupsExpireEvent
  | LogEvent
  | SettledEvent;

export type History = readonly HistoryEvent[];

export type EventOf<T extends HistoryEvent["type"]> = Extract<HistoryEvent, { type: T }>;
