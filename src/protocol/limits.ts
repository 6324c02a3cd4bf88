// Browser-safe. Every limit of the protocol, once: the server enforces these names and nothing else.
// Sizes are bytes unless the name says otherwise; text is measured as UTF-8.

const KIB = 1024;
const MIB = 1024 * KIB;

/** Every integer on the wire is below this: 2^53 − 1 is the last one JavaScript counts exactly. */
export const INTEGER_MAX: number = Number.MAX_SAFE_INTEGER;

/** Topics, groups, instances, subscriptions and producers are named alike. */
export const NAME_PATTERN: RegExp = /^[A-Za-z0-9._-]{1,249}$/;
export const TOPIC_PARTITIONS_MAX = 1_024;
export const TOPICS_MAX = 10_000;

/** Key + headers + value text. */
export const RECORD_BYTES_MAX: number = MIB;
export const KEY_BYTES_MAX: number = 32 * KIB;
export const HEADERS_MAX = 64;
/** The headers object as it stands in the request. */
export const HEADERS_BYTES_MAX: number = 16 * KIB;
/** Arrays and objects inside one another in a value; `[]` is 1 deep. */
export const JSON_DEPTH_MAX = 128;
export const METADATA_BYTES_MAX: number = 4 * KIB;
/** Partitions of all its topics: `assigned` names them in one frame, and an ack may. */
export const PARTITIONS_PER_SUBSCRIPTION_MAX = 10_000;
export const ACK_ENTRIES_MAX: number = PARTITIONS_PER_SUBSCRIPTION_MAX;
/** Of a group's members with their topics, and as much again of its partitions: a remote database tells no more at once. */
export const GROUP_BYTES_MAX = 4_000_000;
/** One transaction. */
export const PARTITIONS_PER_RESET_MAX = 10_000;
/** Frames of one socket that wait for a look at the database: seeks. */
export const SEEKS_WAITING_MAX = 1_000;
/** Entries of acks that wait for the disk, a socket; more are `rate_limited`. */
export const ACK_ENTRIES_WAITING_MAX = 100_000;

export const BATCH_RECORDS_MAX = 10_000;
/** The body of a produce request as it came. */
export const BATCH_BYTES_MAX = 4_000_000;

/** The JSON text of a topic's schema. */
export const SCHEMA_BYTES_MAX: number = 64 * KIB;

/** Expectations of one produce or transaction. */
export const EXPECTATIONS_MAX = 1_024;
/** Partitions that one transaction appends to: each is two statements while nobody else writes. */
export const TRANSACTION_PARTITIONS_MAX = 1_024;
/** A repeated sequence of a producer gets its first answer while it is among the last so many. */
export const PRODUCER_ANSWERS_KEPT = 16;
/** A producer that has written nothing for that long is unknown again. */
export const PRODUCER_IDLE_MAX_MS: number = 7 * 24 * 60 * 60 * 1_000;

/** What is younger is not compacted, and a tombstone is deleted after so long, where the topic says nothing else. */
export const COMPACTION_MIN_LAG_MS = 0;
export const COMPACTION_TOMBSTONE_MS: number = 24 * 60 * 60 * 1_000;

/** Client to server; a larger one closes the socket with 1009. */
export const CLIENT_FRAME_BYTES_MAX: number = 4 * MIB + 64 * KIB;
/** Server to client: a `records` frame holds at most this, or one larger record. */
export const CHUNK_RECORDS_MAX = 500;
export const CHUNK_BYTES_MAX: number = 256 * KIB;

/** What one read over HTTP brings: `limit`, `maxBytes` and `waitMs`. */
export const FETCH_RECORDS_DEFAULT = 500;
export const FETCH_RECORDS_MAX = 10_000;
export const FETCH_BYTES_DEFAULT: number = MIB;
export const FETCH_BYTES_MAX = 4_000_000;
export const FETCH_WAIT_MAX_MS = 30_000;

export const WINDOW_RECORDS_MIN = 1;
export const WINDOW_RECORDS_MAX = 10_000;
export const WINDOW_RECORDS_DEFAULT = 1_000;
export const WINDOW_BYTES_MIN: number = 64 * KIB;
export const WINDOW_BYTES_MAX: number = 4 * MIB;
export const WINDOW_BYTES_DEFAULT: number = MIB;
/** All windows of a socket together. */
export const SOCKET_WINDOW_BYTES_MAX: number = 16 * MIB;
/** No records are handed to a socket that still holds this much. */
export const SOCKET_BUFFER_BYTES_MAX: number = 2 * MIB;
/** A client that asks and never reads the answers is closed with 4029 when its socket holds this much. */
export const SOCKET_ANSWERS_BYTES_MAX: number = 6 * MIB;

export const SUBSCRIPTIONS_PER_SOCKET_MAX = 64;
export const TOPICS_PER_SUBSCRIPTION_MAX = 100;

export const SESSION_TIMEOUT_MIN_MS = 6_000;
export const SESSION_TIMEOUT_MAX_MS = 300_000;
export const SESSION_TIMEOUT_DEFAULT_MS = 45_000;
/** The lease of a server process on a shared database: when it is dead its members are free after that. */
export const PROCESS_LEASE_MS = 10_000;
/** A session times out after this many heartbeats without a sign of life. */
export const HEARTBEATS_PER_SESSION_TIMEOUT = 3;
/** Pings that may go unanswered before the socket is closed with 4008. */
export const PINGS_UNANSWERED_MAX = 3;

/** How long a partition may stay unacknowledged before it is revoked as stalled, where the client wants that. */
export const ACK_TIMEOUT_MIN_MS = 100;
export const ACK_TIMEOUT_MAX_MS = 86_400_000;

/** Operations that wait for the disk, together; one more is `unavailable`. */
export const PENDING_WRITE_BYTES_MAX: number = 64 * MIB;
/** An operation that could not be written in this time is `unavailable`. */
export const WRITE_DEADLINE_MS = 15_000;
/** How long a member may go on acknowledging what it had of a partition that moves to another. */
export const REVOKE_DEADLINE_MS = 5_000;
