// What other server processes have changed, as one cheap question: groups have versions from one sequence, and topics
// a counter. (Growth of partitions that somebody waits for is asked for by stream/wake-ups.ts.)

import { type Db, numberColumn } from "./db.ts";

/** Up to where a process has seen the changes. */
export interface SeenChanges {
  /** Of the sequence that versions of groups come from. */
  readonly version: number;
  readonly catalogVersion: number;
}

export interface Changes extends SeenChanges {
  /** Groups with a new version, by that version. One that was deleted is not among them. */
  readonly groups: readonly (readonly [group: string, version: number])[];
}

const READ_SEEN = `
  SELECT (SELECT last FROM sequence) AS version, (SELECT version FROM catalog) AS catalog_version`;

const READ_CHANGES = `
  SELECT (SELECT last FROM sequence) AS version, (SELECT version FROM catalog) AS catalog_version,
         (SELECT json_group_array(json_array(group_id, version)) FROM groups WHERE version > :version) AS groups`;

/** All that there is. */
export async function readSeen(db: Db): Promise<SeenChanges> {
  const [row = {}] = await db.read({ sql: READ_SEEN });
  return { version: numberColumn(row, "version"), catalogVersion: numberColumn(row, "catalog_version") };
}

/** What has changed since. */
export async function readChanges(db: Db, { version }: SeenChanges): Promise<Changes> {
  const [row = {}] = await db.read({ sql: READ_CHANGES, args: { version } });
  return {
    version: numberColumn(row, "version"),
    catalogVersion: numberColumn(row, "catalog_version"),
    groups: JSON.parse(String(row.groups)),
  };
}
