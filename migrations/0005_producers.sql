-- Exactly once: producers whose batches may be repeated, and topics that take only what their schema allows.

-- What the next batch or transaction of a producer must be. store/producers.ts owns both tables.
CREATE TABLE producers (
  producer_id   TEXT    NOT NULL PRIMARY KEY,
  epoch         INTEGER NOT NULL, -- an older one is fenced
  next_sequence INTEGER NOT NULL, -- of the next batch or transaction in this epoch, over all topics
  used_at       INTEGER NOT NULL  -- ms since 1970; idle for seven days the id is unknown again
) STRICT, WITHOUT ROWID;

-- The answers of a producer's last sixteen sequences, for whoever repeats one.
CREATE TABLE producer_answers (
  producer_id TEXT    NOT NULL,
  slot        INTEGER NOT NULL, -- sequence modulo sixteen: a later one takes its place
  sequence    INTEGER NOT NULL,
  partitions  TEXT    NOT NULL, -- JSON: [topic, partition, offset of the first record] of each that it has appended to
  runs        TEXT    NOT NULL, -- JSON: index into partitions, records, index, records, … in the order of the request
  PRIMARY KEY (producer_id, slot)
) STRICT, WITHOUT ROWID;

ALTER TABLE topics ADD COLUMN schema TEXT;                               -- JSON Schema of its values; NULL: any JSON
ALTER TABLE topics ADD COLUMN schema_version INTEGER NOT NULL DEFAULT 0; -- counts its changes

-- Operations of the flush whose condition did not hold: they have written nothing, and of its log ends nothing is theirs.
ALTER TABLE flushes ADD COLUMN refused_ops TEXT; -- JSON array
