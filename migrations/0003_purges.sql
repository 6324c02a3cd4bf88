-- Partitions of deleted topics whose records and times are still to be deleted, some at a time. A partition that stands
-- here is in no view any more. store/topic-deletion.ts writes the rows, store/purges.ts works them off.
CREATE TABLE purges (
  partition_id INTEGER PRIMARY KEY
) STRICT;
