/** Why a server cannot start on its database. Its message says what to do. */
export class DatabaseError extends Error {
  override readonly name = "DatabaseError";
}
