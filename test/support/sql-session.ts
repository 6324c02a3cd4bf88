// SQL as a user of the database writes it: through stock SQLite in another process, and in the test's own process
// through the two databases that a server knows.

import { ERROR_CODES, type ErrorCode } from "../../src/protocol/codes.ts";
import type { Db, Row } from "../../src/store/db.ts";
import { OtherProcess } from "./database.ts";

export interface SqlSession {
  /** One statement: rejects with what the database says, or resolves to the rows. */
  run(sql: string): Promise<readonly Row[]>;
  end(): Promise<void>;
}

/** Debian's sqlite3 3.40 where it is installed, else the SQLite that Bun brings; open until it is ended. */
export function openStockSession(path: string): SqlSession {
  return Bun.which("sqlite3") ? new SqliteShell(path) : new OtherProcess(path);
}

/** Each statement in a transaction of its own. */
export function sessionOf(db: Db): SqlSession {
  return { run: async (sql) => (await db.write([{ sql }]))[0] ?? [], end: async () => {} };
}

/** The code at the beginning of the message of whoever refused it, or "none". */
export async function refusalOf(work: Promise<unknown>): Promise<ErrorCode | "none"> {
  try {
    await work;
    return "none";
  } catch (error) {
    return codeIn(String(error)) ?? Promise.reject(error);
  }
}

export function codeIn(message: string): ErrorCode | undefined {
  const [, code = ""] =
    /\b([a-z_]+): /.exec(message.replace(/^.*?SQLite error: |^.*?CONSTRAINT: /s, "")) ?? [];
  return Object.keys(ERROR_CODES).find((known): known is ErrorCode => known === code);
}

/** An SQL expression for any text, or for bytes that only pretend to be one. */
export function sqlText(text: string | Uint8Array): string {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  return `CAST(x'${bytes.toHex()}' AS TEXT)`;
}

const END = "── end ──";

class SqliteShell implements SqlSession {
  readonly #child;
  readonly #reader;
  readonly #decoder = new TextDecoder();
  #unread = "";

  constructor(path: string) {
    const shell = ["sh", "-c", 'exec sqlite3 -json -cmd ".timeout 5000" "$0" 2>&1', path];
    this.#child = Bun.spawn(shell, { stdin: "pipe", stdout: "pipe" });
    this.#reader = this.#child.stdout.getReader();
  }

  async run(sql: string): Promise<readonly Row[]> {
    this.#child.stdin.write(`${sql};\n.print "${END}"\n`);
    await this.#child.stdin.flush();
    const said = await this.#untilEnd();
    if (/^(Runtime|Parse) error/.test(said)) throw new Error(said.replace(/^.*?near line \d+: /, ""));
    return JSON.parse(said === "" ? "[]" : said);
  }

  async end(): Promise<void> {
    this.#child.stdin.end();
    await this.#child.exited;
  }

  async #untilEnd(): Promise<string> {
    while (!this.#unread.includes(END)) {
      const { value, done } = await this.#reader.read();
      if (done) throw new Error(`sqlite3 is gone: ${this.#unread}`);
      this.#unread += this.#decoder.decode(value, { stream: true });
    }
    const [said = "", ...rest] = this.#unread.split(`${END}\n`);
    this.#unread = rest.join(`${END}\n`);
    return said.trim();
  }
}
