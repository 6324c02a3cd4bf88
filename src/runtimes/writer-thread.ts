// The writer of a local file on a thread of its own. A commit waits for the disk; meanwhile the event loop reads sockets,
// parses and delivers, and what comes in is in the next commit.
//
// The thread answers in the order in which it is asked. Texts are what is large here, and a text costs a copy.

import { Worker } from "node:worker_threads";
import { DbError, type DbFailure, type Rows, type Statement, type WriteOptions } from "../store/db.ts";
import type { FileWriter } from "../store/file-writer.ts";

export type WriterCall =
  | { readonly type: "open"; readonly path: string }
  | {
      readonly type: "write";
      readonly statements: readonly Statement[];
      readonly options: WriteOptions | undefined;
    }
  | { readonly type: "script"; readonly sql: string }
  | { readonly type: "close" };

export type WriterAnswer =
  | { readonly type: "done"; readonly results: readonly Rows[] }
  | { readonly type: "failed"; readonly failure: DbFailure; readonly message: string };

interface Asked {
  readonly resolve: (results: readonly Rows[]) => void;
  readonly reject: (error: DbError) => void;
}

/** Opens or creates the file, as openFileWriter() does. */
export async function openWriterThread(path: string): Promise<FileWriter> {
  const writer = new WriterThread();
  await writer.open(path);
  return writer;
}

class WriterThread implements FileWriter {
  readonly #thread = new Worker(new URL("./writer-thread-entry.ts", import.meta.url));
  readonly #asked: Asked[] = [];

  constructor() {
    this.#thread.on("message", (answer: WriterAnswer) => this.#settle(answer));
    // It catches whatever a statement does. What ends it is a defect, and with it nothing can be written any more.
    this.#thread.on("error", (error) => {
      throw error;
    });
  }

  async open(path: string): Promise<void> {
    try {
      await this.#ask({ type: "open", path });
    } catch (error) {
      await this.#thread.terminate();
      throw error;
    }
  }

  write(statements: readonly Statement[], options?: WriteOptions): Promise<readonly Rows[]> {
    return this.#ask({ type: "write", statements, options });
  }

  async script(sql: string): Promise<void> {
    await this.#ask({ type: "script", sql });
  }

  async close(): Promise<void> {
    try {
      await this.#ask({ type: "close" });
    } finally {
      await this.#thread.terminate();
    }
  }

  #ask(call: WriterCall): Promise<readonly Rows[]> {
    return new Promise((resolve, reject) => {
      this.#asked.push({ resolve, reject });
      this.#thread.postMessage(call);
    });
  }

  #settle(answer: WriterAnswer): void {
    const asked = this.#asked.shift();
    if (answer.type === "done") asked?.resolve(answer.results);
    else asked?.reject(new DbError(answer.failure, answer.message));
  }
}
