-- So that "the first record at or after a time" costs no scan: timestamps come in any order, and an index on all of
-- them would cost a tenth of every append. store/time-index.ts writes the rows and reads them.

-- No record below `offset`, a multiple of 1,000, has a timestamp above `max_timestamp`. The maximum runs over all
-- rows of the partition before, so it never falls.
CREATE TABLE time_index (
  partition_id  INTEGER NOT NULL,
  offset        INTEGER NOT NULL,
  max_timestamp INTEGER NOT NULL,
  PRIMARY KEY (partition_id, offset)
) STRICT, WITHOUT ROWID;

CREATE INDEX time_index_by_timestamp ON time_index (partition_id, max_timestamp, offset);

-- For the records that are there already, block by block.
WITH RECURSIVE blocks (partition_id, offset, max_timestamp) AS (
  SELECT partition_id, 0, 0 FROM partitions
  UNION ALL
  SELECT b.partition_id, b.offset + 1000,
         max(b.max_timestamp, coalesce((SELECT max(r.timestamp) FROM records AS r
                                         WHERE r.partition_id = b.partition_id
                                           AND r.offset >= b.offset AND r.offset < b.offset + 1000), 0))
  FROM blocks AS b JOIN partitions AS p ON p.partition_id = b.partition_id
  WHERE b.offset + 1000 <= p.log_end_offset
)
INSERT INTO time_index (partition_id, offset, max_timestamp)
SELECT partition_id, offset, max_timestamp FROM blocks WHERE offset > 0;
