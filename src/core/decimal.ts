/** A whole number as JSON writes it, without a sign: undefined for `01`, `+1`, `1e3`, the empty text, or above 2^53 − 1. */
export function parseDecimal(text: string): number | undefined {
  if (!/^(0|[1-9]\d{0,15})$/.test(text)) return undefined;
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : undefined;
}
