// Base64 as RFC 4648, section 4, has it, and strictly: a text stands for one sequence of bytes, and only that text
// for it. So what was produced is delivered again character by character, although the database keeps the bytes.

/** Undefined where the text is not base64: white space, `-` and `_`, missing padding, bits behind the last byte. */
export function decodeBase64(text: string): Uint8Array | undefined {
  try {
    const bytes = Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
    // fromBase64 passes over white space: then the text is longer than its bytes need.
    return text.length === base64Length(bytes.length) ? bytes : undefined;
  } catch {
    return undefined; // all that it throws for a string is that this is not base64
  }
}

/** Characters of so many bytes as base64. */
export function base64Length(bytes: number): number {
  return 4 * Math.ceil(bytes / 3);
}
