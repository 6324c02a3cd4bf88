// The condition of an operation of several statements: stored first, asked by every statement, deleted last. It is
// judged once, however much the statements change of what it looked at and however long they take.

/** For the WHERE of every statement between the one that stores the condition and END_CHECK. */
export const IS_OK = "(SELECT ok FROM guard WHERE op = :op)";

/** The last statement: its row says whether the condition held. */
export const END_CHECK = "DELETE FROM guard WHERE op = :op RETURNING ok";
