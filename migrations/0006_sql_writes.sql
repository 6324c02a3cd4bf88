-- Exactly once with tables of the user's own: what is inserted into the views append_record and commit_offset is part
-- of the transaction that inserts it. docs/sql.md says how to use them. They keep to what SQLite 3.40, libSQL 3.45 and
-- the parser of sqld all understand, and judge as core/produce-request.ts and store/commits.ts do: a server reads what
-- was written here as if it had written it itself.
--
-- A trigger has no variables. Where a value is needed more than once it is inserted into a view of its own, whose
-- trigger then has it as NEW: those views are the functions of this file, and nobody else's business.
--
-- RAISE(ABORT) undoes the statement, and leaves it to whoever has begun the transaction to roll it back. ROLLBACK would
-- end the transaction without a word to them: what they wrote next would stay, by autocommit, without the rest.

-- ── append_record ────────────────────────────────────────────────────────────────────────────────────────

-- Always empty to SELECT. Inserted into: a record, appended at the end of its partition.
CREATE VIEW append_record (topic, key, value, headers, partition) AS
SELECT NULL, NULL, NULL, NULL, NULL WHERE 0;

-- Internal: a record whose partition is known and whose value is JSON text or a BLOB.
CREATE VIEW record_to_append (partition_id, key, value, headers) AS
SELECT NULL, NULL, NULL, NULL WHERE 0;

-- Internal: bytes that must be UTF-8.
CREATE VIEW text_to_check (bytes) AS
SELECT NULL WHERE 0;

CREATE TRIGGER append_record_inserted INSTEAD OF INSERT ON append_record
BEGIN
  SELECT CASE
    WHEN NOT EXISTS (SELECT 1 FROM topics WHERE topic = NEW.topic) THEN
      RAISE(ABORT, 'unknown_topic: there is no topic of that name; the server creates topics')
    WHEN (SELECT schema FROM topics WHERE topic = NEW.topic) IS NOT NULL THEN
      RAISE(ABORT, 'schema_violation: the topic has a schema, which only the server can check; produce to the server')
    WHEN NEW.partition IS NOT NULL AND NOT EXISTS (
      SELECT 1 FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
      WHERE t.topic = NEW.topic AND p.partition = NEW.partition
        AND typeof(NEW.partition) IN ('integer', 'real')) THEN
      RAISE(ABORT, 'unknown_partition: the partition must be one of the topic''s, an integer, or NULL to go by the key')
    WHEN typeof(NEW.key) NOT IN ('null', 'text') THEN
      RAISE(ABORT, 'bad_request: the key must be TEXT or NULL')
    WHEN typeof(NEW.headers) NOT IN ('null', 'text') THEN
      RAISE(ABORT, 'bad_request: the headers must be NULL or the TEXT of a JSON object of strings')
    WHEN typeof(NEW.value) = 'real' AND NEW.value IN (9e999, -9e999) THEN
      RAISE(ABORT, 'bad_request: the value must be a finite number: JSON has no infinity')
    -- Functions of text take NUL for its end: after this there is none.
    WHEN instr(CAST(NEW.key AS BLOB), x'00') THEN
      RAISE(ABORT, 'bad_request: the key must be text without a NUL character')
    WHEN instr(CAST(NEW.headers AS BLOB), x'00') THEN
      RAISE(ABORT, 'bad_request: the headers must be the TEXT of a JSON object of strings, without a NUL character')
    WHEN typeof(NEW.value) = 'text' AND instr(CAST(NEW.value AS BLOB), x'00') THEN
      RAISE(ABORT, 'bad_request: the value must be JSON when it is TEXT, without a NUL character')
  END;

  INSERT INTO record_to_append (partition_id, key, value, headers)
  SELECT
    p.partition_id,
    NEW.key,
    CASE typeof(NEW.value)
      WHEN 'null' THEN 'null'
      WHEN 'integer' THEN CAST(NEW.value AS TEXT)
      WHEN 'real' THEN -- fifteen digits where they are enough
        CASE WHEN CAST(CAST(NEW.value AS TEXT) AS REAL) = NEW.value THEN CAST(NEW.value AS TEXT)
             ELSE printf('%!.17g', NEW.value) END
      WHEN 'text' THEN trim(NEW.value, char(32, 9, 10, 13))
      ELSE NEW.value
    END,
    CASE WHEN json_valid(NEW.headers) AND json(NEW.headers) = '{}' THEN NULL
         ELSE trim(NEW.headers, char(32, 9, 10, 13)) END
  -- CROSS: the topic first, so that the partition is worked out once and looked up, not for each of the topic's.
  FROM topics AS t
  CROSS JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = CASE
    WHEN NEW.partition IS NOT NULL THEN NEW.partition
    WHEN t.partition_count = 1 THEN 0
    WHEN NEW.key IS NULL THEN -- one after the other, as long as nobody else appends by other rules
      (SELECT sum(q.log_end_offset) FROM partitions AS q WHERE q.topic_id = t.topic_id) % t.partition_count
    ELSE
      -- Kafka's murmur2 of the UTF-8 key, as core/partitioner.ts has it, in integers of 64 bits: & 4294967295 keeps 32.
      -- SQLite has no XOR: (a | b) - (a & b). A SELECT without FROM gives a name to a number: without that it would be
      -- worked out again wherever it is used.
      (SELECT ((h | (h >> 15)) - (h & (h >> 15))) & 2147483647 FROM (SELECT (
        SELECT ((h | (h >> 13)) - (h & (h >> 13))) * 1540483477 & 4294967295 FROM (SELECT (
          WITH RECURSIVE mixed (at, hash) AS (
            SELECT 1, (2538058380 | length(CAST(NEW.key AS BLOB))) - (2538058380 & length(CAST(NEW.key AS BLOB)))
            UNION ALL
            SELECT at + 4, (
              SELECT CASE
                WHEN at + 3 <= length(CAST(NEW.key AS BLOB)) THEN (
                  SELECT (h | k) - (h & k) FROM (SELECT
                    hash * 1540483477 & 4294967295 AS h,
                    (SELECT ((k | (k >> 24)) - (k & (k >> 24))) * 1540483477 & 4294967295
                     FROM (SELECT word * 1540483477 & 4294967295 AS k)) AS k))
                ELSE ((hash | word) - (hash & word)) * 1540483477 & 4294967295 -- the one to three bytes that are left
              END
              FROM (SELECT (
                SELECT instr('123456789ABCDEF', substr(digits, 2, 1))
                  | (instr('123456789ABCDEF', substr(digits, 1, 1)) << 4)
                  | (instr('123456789ABCDEF', substr(digits, 4, 1)) << 8)
                  | (instr('123456789ABCDEF', substr(digits, 3, 1)) << 12)
                  | (instr('123456789ABCDEF', substr(digits, 6, 1)) << 16)
                  | (instr('123456789ABCDEF', substr(digits, 5, 1)) << 20)
                  | (instr('123456789ABCDEF', substr(digits, 8, 1)) << 24)
                  | (instr('123456789ABCDEF', substr(digits, 7, 1)) << 28)
                FROM (SELECT hex(substr(CAST(NEW.key AS BLOB), at, 4)) || '000000' AS digits)) AS word))
            FROM mixed
            WHERE at <= length(CAST(NEW.key AS BLOB))
          )
          SELECT hash FROM mixed ORDER BY at DESC LIMIT 1) AS h)) AS h))
      % t.partition_count
  END
  WHERE t.topic = NEW.topic;
END;

CREATE TRIGGER record_to_append_inserted INSTEAD OF INSERT ON record_to_append
BEGIN
  SELECT CASE
    WHEN length(CAST(NEW.key AS BLOB)) > 32768 THEN
      RAISE(ABORT, 'record_too_large: the key must be at most 32768 bytes of UTF-8')
    WHEN length(CAST(NEW.headers AS BLOB)) > 16384 THEN
      RAISE(ABORT, 'record_too_large: the headers must be at most 16384 bytes of UTF-8')
    WHEN length(CAST(NEW.value AS BLOB)) + coalesce(length(CAST(NEW.key AS BLOB)), 0)
         + coalesce(length(CAST(NEW.headers AS BLOB)), 0) > 1048576 THEN
      RAISE(ABORT, 'record_too_large: key, headers and value together must be at most 1048576 bytes')
    WHEN typeof(NEW.value) = 'text' AND NOT json_valid(NEW.value) THEN
      RAISE(ABORT, 'bad_request: the value must be JSON when it is TEXT; json_quote(text) makes JSON of any text')
    -- An array or object that is `depth` deep can be the way to one 129 deep only when it has enough brackets.
    WHEN typeof(NEW.value) = 'text' AND length(NEW.value) > 256 AND EXISTS (
      WITH RECURSIVE nested (json, depth) AS (
        SELECT NEW.value, 1
        WHERE length(NEW.value) - length(replace(replace(NEW.value, '[', ''), '{', '')) > 128
        UNION ALL
        SELECT inner.value, depth + 1
        FROM nested JOIN json_each(nested.json) AS inner
        WHERE inner.type IN ('array', 'object') AND depth < 129
          AND length(inner.value) - length(replace(replace(inner.value, '[', ''), '{', '')) > 128 - depth
      )
      SELECT 1 FROM nested WHERE depth = 129) THEN
      RAISE(ABORT, 'bad_request: the value must have at most 128 arrays and objects inside one another')
    WHEN NEW.headers IS NULL THEN NULL
    WHEN CASE WHEN json_valid(NEW.headers) THEN json_type(NEW.headers) END IS NOT 'object'
      OR EXISTS (SELECT 1 FROM json_each(NEW.headers) WHERE type <> 'text') THEN
      RAISE(ABORT, 'bad_request: the headers must be NULL or the TEXT of a JSON object of strings')
    WHEN (SELECT count(*) FROM json_each(NEW.headers)) > 64 THEN
      RAISE(ABORT, 'record_too_large: there must be at most 64 headers')
    WHEN (SELECT count(*) > count(DISTINCT key) FROM json_each(NEW.headers)) THEN
      RAISE(ABORT, 'bad_request: each header must be there once')
    -- Escapes, with \\ out of the way: there is no other backslash that does not begin one, and no control character.
    WHEN (SELECT text GLOB '*\u0000*'
              OR text GLOB '*' || char(1) || '[89ab]??[^' || char(1) || ']*'    -- a high surrogate, then no \ud
              OR text GLOB '*' || char(1) || '[89ab]??' || char(1) || '[^c-f]*' -- then another than a low one
              OR text GLOB '*[^' || char(1) || ']???' || char(1) || '[c-f]*'    -- no \ud, then a low one
              OR text GLOB '*' || char(1) || '[^89ab]??' || char(1) || '[c-f]*' -- another than a high one before it
            FROM (SELECT '....' || replace(replace(lower(NEW.headers), '\\', '.'), '\ud', char(1)) AS text)) THEN
      RAISE(ABORT, 'bad_request: the headers must be Unicode text without NUL, and without a surrogate that has no other')
  END;

  -- Nothing but ASCII is UTF-8; whatever else there is is looked at byte by byte.
  INSERT INTO text_to_check (bytes)
  SELECT CAST(coalesce(NEW.key, '') || ' ' || coalesce(NEW.headers, '') || ' '
              || CASE typeof(NEW.value) WHEN 'text' THEN NEW.value ELSE '' END AS BLOB)
  WHERE NEW.key GLOB '*[^' || char(1) || '-' || char(127) || ']*'
     OR NEW.headers GLOB '*[^' || char(1) || '-' || char(127) || ']*'
     OR (typeof(NEW.value) = 'text' AND NEW.value GLOB '*[^' || char(1) || '-' || char(127) || ']*');

  INSERT INTO records (partition_id, offset, timestamp, key, value, headers)
  SELECT p.partition_id, p.log_end_offset, (SELECT now_ms FROM clock), NEW.key, NEW.value, NEW.headers
  FROM partitions AS p
  WHERE p.partition_id = NEW.partition_id;

  -- A records frame has 84 bytes around a record, and the key in quotes: a control character takes up to six bytes
  -- there, a quote and a backslash two. A BLOB is base64 there, in quotes too.
  UPDATE partitions
  SET log_end_offset = log_end_offset + 1,
      records = records + 1,
      bytes = bytes + length(CAST(NEW.value AS BLOB)) + coalesce(length(CAST(NEW.key AS BLOB)), 0)
              + coalesce(length(CAST(NEW.headers AS BLOB)), 0),
      frame_bytes_max = max(
        frame_bytes_max,
        84 + coalesce(length(CAST(NEW.headers AS BLOB)), 0)
        + CASE typeof(NEW.value) WHEN 'blob' THEN (length(NEW.value) + 2) / 3 * 4 + 2
                                 ELSE length(CAST(NEW.value AS BLOB)) END
        + CASE WHEN NEW.key IS NULL THEN 0
               WHEN NEW.key GLOB '*[' || char(1) || '-' || char(31) || ']*' THEN 2 + 6 * length(CAST(NEW.key AS BLOB))
               ELSE 2 + length(CAST(NEW.key AS BLOB))
                    + length(NEW.key) - length(replace(replace(NEW.key, '"', ''), '\', '')) END)
  WHERE partition_id = NEW.partition_id;

  -- As store/time-index.ts does, when another thousand records are complete.
  INSERT INTO time_index (partition_id, offset, max_timestamp)
  SELECT NEW.partition_id, offset, max_timestamp
  FROM (
    WITH RECURSIVE blocks (offset, max_timestamp, log_end_offset) AS (
      SELECT coalesce((SELECT i.offset FROM time_index AS i
                       WHERE i.partition_id = NEW.partition_id ORDER BY i.offset DESC LIMIT 1), 0),
             coalesce((SELECT i.max_timestamp FROM time_index AS i
                       WHERE i.partition_id = NEW.partition_id ORDER BY i.offset DESC LIMIT 1), 0),
             p.log_end_offset
      FROM partitions AS p
      WHERE p.partition_id = NEW.partition_id AND p.log_end_offset % 1000 = 0
      UNION ALL
      SELECT b.offset + 1000,
             max(b.max_timestamp, coalesce((SELECT max(r.timestamp) FROM records AS r
                                            WHERE r.partition_id = NEW.partition_id
                                              AND r.offset >= b.offset AND r.offset < b.offset + 1000), 0)),
             b.log_end_offset
      FROM blocks AS b
      WHERE b.offset + 1000 <= b.log_end_offset
    )
    SELECT offset, max_timestamp FROM blocks LIMIT -1 OFFSET 1
  );
END;

-- By the table of well-formed sequences in the Unicode standard (3-7): no overlong form, no surrogate, nothing above
-- U+10FFFF, nothing cut off. A server that reads anything else as text aborts, and again after every restart.
CREATE TRIGGER text_to_check_inserted INSTEAD OF INSERT ON text_to_check
BEGIN
  SELECT RAISE(ABORT, 'bad_request: key, headers and value must be UTF-8; other bytes are for a BLOB')
  WHERE EXISTS (
    WITH RECURSIVE walk (at) AS ( -- the position of the next character, NULL behind bytes that are none
      SELECT 1
      UNION ALL
      SELECT at + (
        SELECT CASE
          WHEN digits GLOB '[0-7]?[0-7]?[0-7]?[0-7]?[0-7]?[0-7]?[0-7]?[0-7]?' THEN 8
          WHEN digits GLOB '[0-7]?*' THEN 1
          WHEN digits GLOB 'C[2-9A-F][89AB]?*' THEN 2
          WHEN digits GLOB 'D?[89AB]?*' THEN 2
          WHEN digits GLOB 'E0[AB]?[89AB]?*' THEN 3
          WHEN digits GLOB 'E[1-9ABCEF][89AB]?[89AB]?*' THEN 3
          WHEN digits GLOB 'ED[89]?[89AB]?*' THEN 3
          WHEN digits GLOB 'F0[9AB]?[89AB]?[89AB]?*' THEN 4
          WHEN digits GLOB 'F[123][89AB]?[89AB]?[89AB]?*' THEN 4
          WHEN digits GLOB 'F48?[89AB]?[89AB]?*' THEN 4
        END
        FROM (SELECT hex(substr(NEW.bytes, at, 8)) AS digits))
      FROM walk
      WHERE at <= length(NEW.bytes)
    )
    SELECT 1 FROM walk WHERE at IS NULL);
END;

-- ── commit_offset ────────────────────────────────────────────────────────────────────────────────────────

-- Always empty to SELECT. Inserted into: the group has processed all below this offset of the partition.
CREATE VIEW commit_offset (group_id, topic, partition, generation, offset) AS
SELECT NULL, NULL, NULL, NULL, NULL WHERE 0;

-- It must advance: whoever repeats a transaction does not apply its results for the second time.
CREATE TRIGGER commit_offset_inserted INSTEAD OF INSERT ON commit_offset
BEGIN
  SELECT CASE
    WHEN NOT EXISTS (SELECT 1 FROM topics WHERE topic = NEW.topic) THEN
      RAISE(ABORT, 'unknown_topic: there is no topic of that name')
    WHEN NOT EXISTS (
      SELECT 1 FROM topics AS t JOIN partitions AS p ON p.topic_id = t.topic_id
      WHERE t.topic = NEW.topic AND p.partition = NEW.partition
        AND typeof(NEW.partition) IN ('integer', 'real')) THEN
      RAISE(ABORT, 'unknown_partition: the partition must be one of the topic''s, an integer')
    WHEN typeof(NEW.generation) NOT IN ('integer', 'real') OR NEW.generation <> CAST(NEW.generation AS INTEGER) THEN
      RAISE(ABORT, 'bad_request: the generation must be an integer, the one that came with the records')
    WHEN typeof(NEW.offset) NOT IN ('integer', 'real') OR NEW.offset <> CAST(NEW.offset AS INTEGER) OR NEW.offset < 0 THEN
      RAISE(ABORT, 'bad_request: the offset must be an integer of 0 or more, the next one to be processed')
    WHEN NOT EXISTS (SELECT 1 FROM topics AS t
                     JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = NEW.partition
                     JOIN assignments AS a ON a.group_id = NEW.group_id AND a.partition_id = p.partition_id
                     WHERE t.topic = NEW.topic AND a.generation = NEW.generation) THEN
      RAISE(ABORT, 'fenced_generation: this generation does not own the partition (any more); roll back')
    WHEN NEW.offset > (SELECT p.log_end_offset FROM topics AS t
                       JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = NEW.partition
                       WHERE t.topic = NEW.topic) THEN
      RAISE(ABORT, 'offset_out_of_range: the offset must be at most the log end offset of the partition')
    WHEN NEW.offset <= (SELECT c.committed_offset FROM topics AS t
                        JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = NEW.partition
                        JOIN committed_offsets AS c ON c.group_id = NEW.group_id AND c.partition_id = p.partition_id
                        WHERE t.topic = NEW.topic) THEN
      RAISE(ABORT, 'conflict: the offset must be above the committed one; roll back, these records have been processed')
  END;

  INSERT INTO committed_offsets (group_id, partition_id, committed_offset, metadata, committed_at)
  SELECT NEW.group_id, p.partition_id, CAST(NEW.offset AS INTEGER), NULL, (SELECT now_ms FROM clock)
  FROM topics AS t
  JOIN partitions AS p ON p.topic_id = t.topic_id AND p.partition = NEW.partition
  WHERE t.topic = NEW.topic
  ON CONFLICT (group_id, partition_id) DO UPDATE
    SET committed_offset = excluded.committed_offset, metadata = NULL, committed_at = excluded.committed_at;
END;
