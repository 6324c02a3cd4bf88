// Browser-safe.

/**
 * Why a decoded key, name, header or id may not go to the database, or null. SQLite stores a lone surrogate as bytes
 * that are not UTF-8, and reading them back aborts the whole process; at a NUL, C code takes a text to end.
 */
export function findBadText(text: string): "lone surrogate" | "NUL" | null {
  if (!text.isWellFormed()) return "lone surrogate";
  return text.includes("\0") ? "NUL" : null;
}
