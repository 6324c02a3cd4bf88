// The examples of the client's docs. Each is a whole program in a fence of its own, in a docstring or on a page:
//
//   ```ts            ends by itself, with nothing on standard error
//   ```ts endless    goes on, like a consumer; it works when it has printed a line
//
// It connects to URL_IN_EXAMPLES. What it finds there is in sample-orders.ts.

export interface Example {
  /** Of the line where it begins: `clients/typescript/client.ts:17`. */
  readonly at: string;
  readonly text: string;
  readonly isEndless: boolean;
}

/** `path`: a page, or a source, of which the docstrings are read. Throws where an example would be overlooked. */
export function examplesIn(path: string, text: string): readonly Example[] {
  const lines = path.endsWith(".md") ? text.split("\n") : docstringLines(text);
  const examples: Example[] = [];
  for (let index = 0; index < lines.length; index += 1) {
    const at = `${path}:${index + 2}`;
    const line = lines[index] ?? "";
    if (line.startsWith("@example")) requireProgram(lines, { path, index });
    const [, indentation = "", fence] = line.match(/^(\s*)```(.*)$/) ?? [];
    if (fence === undefined) continue;
    if (indentation !== "") throw new Error(`${at} is indented: its fence has to begin the line`);
    const end = lines.indexOf("```", index + 1);
    if (end === -1) throw new Error(`${at} is in a fence that does not end`);
    if (isProgram(fence, at))
      examples.push({ at, text: `${lines.slice(index + 1, end).join("\n")}\n`, isEndless: fence !== "ts" });
    index = end;
  }
  return examples;
}

/** The lines of the source, empty but for what docstrings say. */
function docstringLines(source: string): readonly string[] {
  let isInside = false;
  return source.split("\n").map((line) => {
    if (/^\s*\/\*\*/.test(line)) isInside = true;
    const said = isInside ? line.replace(/^\s*(\/\*\*|\*(?!\/)) ?/, "").replace(/\s*\*\/$/, "") : "";
    if (line.includes("*/")) isInside = false;
    return said;
  });
}

function requireProgram(lines: readonly string[], { path, index }: { path: string; index: number }): void {
  const next = lines.slice(index + 1).find((line) => line.trim() !== "");
  if (next?.startsWith("```ts")) return;
  throw new Error(
    `${path}:${index + 1} has an @example without a \`\`\`ts fence below it: nobody would run it`,
  );
}

function isProgram(fence: string, at: string): boolean {
  if (fence === "ts" || fence === "ts endless") return true;
  if (/^(ts|tsx|js|jsx|mts|typescript|javascript)\b/.test(fence))
    throw new Error(`${at} is fenced as "${fence}": a program is "ts", or "ts endless"`);
  return false;
}
