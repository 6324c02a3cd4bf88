// Browser-safe. The bytes of a record travel as base64 with padding (RFC 4648, section 4).

/** Throws where `text` is not base64: a server never sends such. */
export function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  // Node 24 has neither of the standard's two.
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

export function encodeBase64(bytes: Uint8Array): string {
  if (bytes.toBase64) return bytes.toBase64();
  let characters = ""; // one by one: as arguments of one call a mebibyte would not fit the stack
  for (const byte of bytes) characters += String.fromCharCode(byte);
  return btoa(characters);
}
