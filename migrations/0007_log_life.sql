-- The life of a log: retention, compaction, and what expires. store/upkeep.ts does the work, a bounded step at a time.

ALTER TABLE topics ADD COLUMN retention_ms INTEGER;      -- what was appended longer ago goes; NULL: no limit
ALTER TABLE topics ADD COLUMN retention_bytes INTEGER;   -- most that each partition keeps; NULL: no limit
ALTER TABLE topics ADD COLUMN retention_records INTEGER; -- the same in records
ALTER TABLE topics ADD COLUMN cleanup TEXT NOT NULL DEFAULT 'delete'; -- or 'compact': the newest record of each key stays
ALTER TABLE topics ADD COLUMN cleanup_version INTEGER NOT NULL DEFAULT 0; -- counts its changes
ALTER TABLE topics ADD COLUMN compaction_min_lag_ms INTEGER;    -- what was appended after that is left alone; NULL: 0
ALTER TABLE topics ADD COLUMN compaction_tombstone_ms INTEGER;  -- how long tombstones stay; NULL: a day

-- The topics that have any of it: there are few, and a look reads nothing of the others.
CREATE INDEX topics_with_upkeep ON topics (
  topic_id, retention_ms, retention_bytes, retention_records, cleanup, cleanup_version,
  compaction_min_lag_ms, compaction_tombstone_ms
) WHERE retention_ms IS NOT NULL OR retention_bytes IS NOT NULL OR retention_records IS NOT NULL OR cleanup = 'compact';

-- At `at` the log ended here: all below was appended before. Written now and then for topics where age counts, so that
-- no append has to note its time. store/retention.ts owns it.
CREATE TABLE append_times (
  partition_id   INTEGER NOT NULL,
  log_end_offset INTEGER NOT NULL,
  at             INTEGER NOT NULL, -- ms since 1970
  PRIMARY KEY (partition_id, log_end_offset)
) STRICT, WITHOUT ROWID;

-- Where the step of a trim ends. No row outlives its transaction. store/trims.ts owns it.
CREATE TABLE trim_steps (
  partition_id INTEGER PRIMARY KEY,
  before       INTEGER NOT NULL -- all records below go
) STRICT;

-- How far a partition is compacted. store/compaction.ts owns the three tables.
CREATE TABLE compactions (
  partition_id    INTEGER PRIMARY KEY,
  cleanup_version INTEGER NOT NULL, -- of the topic when it began; when the topic has another one it begins again
  compacted_to    INTEGER NOT NULL, -- below it there is one record for each key
  step_end        INTEGER NOT NULL  -- while a step is under way: what it does
) STRICT;

-- The newest record of each key below `compacted_to`.
CREATE TABLE compacted_keys (
  partition_id INTEGER NOT NULL,
  key          TEXT    NOT NULL,
  offset       INTEGER NOT NULL,
  tombstone_at INTEGER,          -- ms since 1970: when compaction came to it; NULL where it is no tombstone
  PRIMARY KEY (partition_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX compacted_keys_by_tombstone ON compacted_keys (partition_id, tombstone_at) WHERE tombstone_at IS NOT NULL;

-- Records that a step of compaction is about to delete. No row outlives its transaction.
CREATE TABLE superseded (
  offset INTEGER PRIMARY KEY
) STRICT;

-- Since when a group has had no members, where that matters: while the group still has this version.
CREATE TABLE idle_groups (
  group_id TEXT    NOT NULL PRIMARY KEY,
  version  INTEGER NOT NULL,
  since    INTEGER NOT NULL -- ms since 1970
) STRICT, WITHOUT ROWID;

-- A group that expires takes its history with it, of which there may be much of other groups.
CREATE INDEX offset_history_by_group ON offset_history (group_id);

-- The server process that does the work on a shared database; no row while there is none to do.
CREATE TABLE upkeep_lease (
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  process_id TEXT    NOT NULL,
  expires_at INTEGER NOT NULL -- ms since 1970
) STRICT;

-- What is appended to a compacted topic has a key, whoever appends it.
CREATE TRIGGER append_record_has_key INSTEAD OF INSERT ON append_record
WHEN NEW.key IS NULL AND EXISTS (SELECT 1 FROM topics WHERE topic = NEW.topic AND cleanup = 'compact')
BEGIN
  SELECT RAISE(ABORT, 'bad_request: the topic is compacted: each of its records must have a key');
END;
