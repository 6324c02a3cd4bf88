// Browser-safe.

/**
 * Counts the changes of what travels: schemas, codes, limits. A test holds a hash of all of them beside this number, so
 * that none changes unnoticed; PROTOCOL.md says what each revision brought. A change that an old client cannot ignore
 * is another path (/v2), not a revision.
 */
export const PROTOCOL_REVISION = 4;
