-- The log and its consumer groups. Times are integer milliseconds since 1970 UTC; every offset is a *next* offset.
-- Stock SQLite 3.40 reads everything below beside the running server; only the server writes.

-- The only clock of leases and default timestamps. A view, so that a simulation can put a table in its place.
CREATE VIEW clock (now_ms) AS
  SELECT CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER);

-- Writers take the write lock by an UPDATE of this table that changes nothing (store/embedded.ts says why).
CREATE TABLE write_lock (n INTEGER NOT NULL) STRICT;
INSERT INTO write_lock VALUES (0);

-- One counter for all that must never be given twice: generations, memberships, versions of a group.
CREATE TABLE sequence (last INTEGER NOT NULL) STRICT;
INSERT INTO sequence VALUES (0);

-- An operation of several statements stores its condition here first, is skipped where it does not hold, and
-- deletes its row last: no rows outside a transaction.
CREATE TABLE guard (op INTEGER PRIMARY KEY, ok INTEGER NOT NULL) STRICT;

CREATE TABLE topics (
  topic_id        INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused: a topic created again is another topic
  topic           TEXT    NOT NULL UNIQUE,
  partition_count INTEGER NOT NULL,
  created_at      INTEGER NOT NULL
) STRICT;

CREATE TABLE partitions (
  partition_id     INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused
  topic_id         INTEGER NOT NULL REFERENCES topics (topic_id),
  partition        INTEGER NOT NULL,                  -- 0 … partition_count − 1
  log_start_offset INTEGER NOT NULL DEFAULT 0,        -- offset of the first retained record
  log_end_offset   INTEGER NOT NULL DEFAULT 0,        -- offset that the next record will get
  records          INTEGER NOT NULL DEFAULT 0,        -- retained records
  bytes            INTEGER NOT NULL DEFAULT 0,        -- their keys, headers and values as UTF-8
  frame_bytes_max  INTEGER NOT NULL DEFAULT 0,        -- no record of the partition takes more in a records frame
  UNIQUE (topic_id, partition)
) STRICT;

CREATE TABLE records (
  partition_id INTEGER NOT NULL,
  offset     INTEGER NOT NULL, -- from 0, dense on append, never reused
  timestamp    INTEGER NOT NULL, -- the producer's, else the time of the append
  key          TEXT,
  value        ANY     NOT NULL, -- JSON text as it came; a BLOB for a record with bytes
  headers      TEXT,             -- JSON object of strings as it came; NULL when there are none
  PRIMARY KEY (partition_id, offset)
) STRICT, WITHOUT ROWID;

CREATE TABLE groups (
  group_id   TEXT    NOT NULL PRIMARY KEY,
  version    INTEGER NOT NULL, -- a new number from sequence with every change of members or assignments
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What the group has subscribed to, by name: it outlives members and a topic that is created again.
CREATE TABLE group_topics (
  group_id        TEXT    NOT NULL REFERENCES groups (group_id),
  topic           TEXT    NOT NULL,
  topic_id        INTEGER NOT NULL, -- the topic of that name that the group has seen
  partitions_seen INTEGER NOT NULL, -- how many of its partitions; later ones start at their beginning
  PRIMARY KEY (group_id, topic)
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
  group_id           TEXT    NOT NULL REFERENCES groups (group_id),
  member_id          TEXT    NOT NULL,
  instance_id        TEXT,             -- static membership: survives its socket until the lease ends
  membership         INTEGER NOT NULL, -- a new number from sequence with every join: fences what an older join left
  topics             TEXT    NOT NULL, -- JSON array of names
  session_timeout_ms INTEGER NOT NULL,
  joined_at          INTEGER NOT NULL,
  lease_expires_at   INTEGER NOT NULL,
  PRIMARY KEY (group_id, member_id)
) STRICT, WITHOUT ROWID;

-- Who owns what. The generation is the fence: an ack that names any other has no effect.
CREATE TABLE assignments (
  group_id     TEXT    NOT NULL REFERENCES groups (group_id),
  partition_id INTEGER NOT NULL,
  member_id    TEXT    NOT NULL,
  generation   INTEGER NOT NULL,
  PRIMARY KEY (group_id, partition_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE committed_offsets (
  group_id         TEXT    NOT NULL REFERENCES groups (group_id),
  partition_id     INTEGER NOT NULL,
  committed_offset INTEGER NOT NULL, -- next offset to be processed
  metadata         TEXT,             -- what the consumer said with it
  committed_at     INTEGER NOT NULL,
  PRIMARY KEY (group_id, partition_id)
) STRICT, WITHOUT ROWID;

-- Every offset that was given by anything but an ack: who, when, why.
CREATE TABLE offset_history (
  history_id      INTEGER PRIMARY KEY AUTOINCREMENT,
  group_id        TEXT    NOT NULL,
  topic           TEXT    NOT NULL,
  partition       INTEGER NOT NULL,
  previous_offset INTEGER,          -- NULL where nothing was committed
  new_offset      INTEGER NOT NULL,
  cause           TEXT    NOT NULL, -- e.g. 'missing: earliest', the policy that was applied
  actor           TEXT    NOT NULL, -- e.g. 'member 3f2a…'
  at              INTEGER NOT NULL
) STRICT;

-- ── views for people: times as ISO 8601 text, names instead of ids ──────────────────────────────────────

CREATE VIEW topic_records AS
SELECT
  t.topic,
  p.partition,
  r.offset,
  strftime('%Y-%m-%dT%H:%M:%fZ', r.timestamp / 1000.0, 'unixepoch') AS timestamp, -- NULL after the year 9999
  r.key,
  r.value,  -- JSON text, or a BLOB
  r.headers -- JSON object text, or NULL
FROM topics AS t
JOIN partitions AS p ON p.topic_id = t.topic_id
JOIN records AS r ON r.partition_id = p.partition_id;

CREATE VIEW partition_stats AS
SELECT
  t.topic,
  p.partition,
  p.log_start_offset, -- offset of the first retained record
  p.log_end_offset,   -- offset that the next record will get
  p.records,          -- retained records
  p.bytes,            -- their keys, headers and values as UTF-8
  (SELECT strftime('%Y-%m-%dT%H:%M:%fZ', r.timestamp / 1000.0, 'unixepoch')
     FROM records AS r
    WHERE r.partition_id = p.partition_id
    ORDER BY r.offset DESC LIMIT 1) AS last_timestamp -- of the last record; NULL when there is none
FROM topics AS t
JOIN partitions AS p ON p.topic_id = t.topic_id;

-- A row for every partition of every topic that the group subscribes to or has committed.
CREATE VIEW consumer_lag AS
SELECT
  g.group_id,
  t.topic,
  p.partition,
  c.committed_offset, -- next offset to be processed; NULL where nothing is committed
  p.log_start_offset,
  p.log_end_offset,
  max(0, p.log_end_offset - max(c.committed_offset, p.log_start_offset)) AS lag, -- NULL where nothing is committed
  (SELECT strftime('%Y-%m-%dT%H:%M:%fZ', r.timestamp / 1000.0, 'unixepoch')
     FROM records AS r
    WHERE r.partition_id = p.partition_id AND r.offset >= coalesce(c.committed_offset, p.log_start_offset)
    ORDER BY r.offset LIMIT 1) AS oldest_unread_at, -- timestamp of the first record not yet processed
  a.member_id,  -- the owner; NULL while nobody is
  a.generation, -- the one that is accepted; NULL while nobody owns it
  strftime('%Y-%m-%dT%H:%M:%fZ', c.committed_at / 1000.0, 'unixepoch') AS committed_at,
  c.metadata    -- what the consumer said with its last ack
FROM group_topics AS g
JOIN topics AS t ON t.topic = g.topic
JOIN partitions AS p ON p.topic_id = t.topic_id
LEFT JOIN committed_offsets AS c ON c.group_id = g.group_id AND c.partition_id = p.partition_id
LEFT JOIN assignments AS a ON a.group_id = g.group_id AND a.partition_id = p.partition_id;

CREATE VIEW group_members AS
SELECT
  m.group_id,
  m.member_id,
  m.instance_id, -- NULL for a member that ends with its socket
  (SELECT json_group_array(json_object('topic', t.topic, 'partition', p.partition, 'generation', a.generation))
     FROM assignments AS a
     JOIN partitions AS p ON p.partition_id = a.partition_id
     JOIN topics AS t ON t.topic_id = p.topic_id
    WHERE a.group_id = m.group_id AND a.member_id = m.member_id) AS partitions, -- JSON: what it owns
  strftime('%Y-%m-%dT%H:%M:%fZ', m.lease_expires_at / 1000.0, 'unixepoch') AS lease_expires_at
FROM members AS m;

CREATE VIEW commit_history AS
SELECT
  h.group_id,
  h.topic,
  h.partition,
  h.previous_offset, -- NULL where nothing was committed
  h.new_offset,
  h.cause,
  h.actor,
  strftime('%Y-%m-%dT%H:%M:%fZ', h.at / 1000.0, 'unixepoch') AS at
FROM offset_history AS h
ORDER BY h.history_id;
