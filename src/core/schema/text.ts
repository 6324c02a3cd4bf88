// How schemas and what breaks them are put into words.

const QUOTED_LENGTH_MAX = 64;

/** The pointer of a member or an item of what `pointer` leads to. */
export function pointerTo(pointer: string, token: string): string {
  return `${pointer}/${token.replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

/** Text out of a request, for a message. */
export function quote(text: string): string {
  return JSON.stringify(cut(text));
}

/** A value out of a request, for a message. */
export function textOf(value: unknown): string {
  if (Array.isArray(value)) return cutOr(value, `array of ${value.length}`);
  if (typeof value === "object" && value !== null)
    return cutOr(value, `object of ${Object.keys(value).length}`);
  if (typeof value === "string") return quote(value);
  return String(value);
}

function cutOr(value: unknown, otherwise: string): string {
  const text = JSON.stringify(value);
  return text.length <= QUOTED_LENGTH_MAX ? text : otherwise;
}

function cut(text: string): string {
  const whole = text.toWellFormed();
  return whole.length <= QUOTED_LENGTH_MAX ? whole : `${whole.slice(0, QUOTED_LENGTH_MAX).toWellFormed()}…`;
}
