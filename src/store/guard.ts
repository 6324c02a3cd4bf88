// The condition of an operation of several statements: stored first, asked by every statement, deleted last. It is
// judged once, however much the statements change of what it looked at and however long they take.

/** For the WHERE of every statement between the one that stores the condition and the last. */
export const IS_OK = "(SELECT ok FROM guard WHERE op = :op)";

/** The same for statements that operations without a condition have too: their `:op` is null. */
export const IS_OK_OR_FREE = `(:op IS NULL OR ${IS_OK})`;

/** No row outlives its transaction. */
export const EMPTY_GUARD = "DELETE FROM guard";

/** The last statement: its row says whether the condition held. */
export const END_CHECK = "DELETE FROM guard WHERE op = :op RETURNING ok";
