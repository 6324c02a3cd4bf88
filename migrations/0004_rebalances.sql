-- Groups of several members, on several server processes that share nothing but this database: whoever rebalances
-- applies the new owner's policies, a partition changes hands only when its owner has let it go or the deadline is over,
-- and whatever one process changes the others find.

ALTER TABLE members ADD COLUMN policies TEXT NOT NULL -- JSON: what to do where there is no usable committed offset
  DEFAULT '{"missing":"earliest","outOfRange":"earliest"}';
ALTER TABLE members ADD COLUMN process_id TEXT;       -- the server process that holds its socket; NULL where there is only one
ALTER TABLE members ADD COLUMN has_grace INTEGER NOT NULL DEFAULT 0; -- 1: an outage has lengthened the lease once since it was renewed

ALTER TABLE assignments ADD COLUMN revoke_deadline INTEGER; -- until then its acks count; NULL while it is not revoked
ALTER TABLE assignments ADD COLUMN reset TEXT;              -- JSON: the policy that gave the place; NULL where none did

-- Server processes on a shared database: one that is gone renews its lease no more, and its members end with it.
CREATE TABLE processes (
  process_id       TEXT    NOT NULL PRIMARY KEY,
  lease_expires_at INTEGER NOT NULL,
  has_grace        INTEGER NOT NULL DEFAULT 0 -- as a member has
) STRICT, WITHOUT ROWID;

-- When a membership ends unless somebody is heard of: its own lease, or before that its process's. A static member
-- (with an instance_id) outlives its process.
CREATE VIEW member_leases AS
SELECT
  m.group_id,
  m.member_id,
  CASE WHEN m.process_id IS NULL OR m.instance_id IS NOT NULL THEN m.lease_expires_at
       ELSE min(m.lease_expires_at,
                coalesce((SELECT p.lease_expires_at FROM processes AS p WHERE p.process_id = m.process_id), 0))
  END AS expires_at -- ms since 1970
FROM members AS m;

DROP VIEW group_members;
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
  strftime('%Y-%m-%dT%H:%M:%fZ', l.expires_at / 1000.0, 'unixepoch') AS lease_expires_at
FROM members AS m
JOIN member_leases AS l ON l.group_id = m.group_id AND l.member_id = m.member_id;

-- Counts the changes of topics and of their partitions, so that one number tells a process whether to look.
CREATE TABLE catalog (version INTEGER NOT NULL) STRICT;
INSERT INTO catalog VALUES (0);
CREATE TRIGGER catalog_topic_created AFTER INSERT ON topics BEGIN UPDATE catalog SET version = version + 1; END;
CREATE TRIGGER catalog_topic_changed AFTER UPDATE ON topics BEGIN UPDATE catalog SET version = version + 1; END;
CREATE TRIGGER catalog_topic_deleted AFTER DELETE ON topics BEGIN UPDATE catalog SET version = version + 1; END;

-- The last flush of each writer of a shared database: it says whether one whose answer was lost has been written, and
-- lets no flush be written twice or after a later one. store/remote.ts owns it.
CREATE TABLE flushes (
  writer_id  TEXT    NOT NULL PRIMARY KEY,
  number     INTEGER NOT NULL, -- 1, 2, 3, …
  log_ends   TEXT,             -- JSON: [partition id, log end offset after the flush] of what it has appended to
  written_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is due next.
CREATE INDEX members_by_lease ON members (lease_expires_at);
CREATE INDEX members_by_process ON members (process_id) WHERE process_id IS NOT NULL;
CREATE INDEX processes_by_lease ON processes (lease_expires_at);
CREATE INDEX assignments_by_deadline ON assignments (revoke_deadline) WHERE revoke_deadline IS NOT NULL;

-- What has changed since a version: versions come from one sequence, in the order of the commits.
CREATE INDEX groups_by_version ON groups (version);

-- The groups that have a topic: what is about to be done to it may be too much for one of them.
CREATE INDEX group_topics_by_topic ON group_topics (topic);
