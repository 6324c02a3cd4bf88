// What runs on the thread of writer-thread.ts.

import { parentPort } from "node:worker_threads";
import { DbError, type Rows } from "../store/db.ts";
import { type FileWriter, openFileWriter } from "../store/file-writer.ts";
import type { WriterAnswer, WriterCall } from "./writer-thread.ts";

const NOTHING: readonly Rows[] = [];
let writer: FileWriter | undefined;

parentPort?.on("message", (call: WriterCall) => void answerTo(call));

/** Everything inside is synchronous: the next call finds this one done. */
async function answerTo(call: WriterCall): Promise<void> {
  let answer: WriterAnswer;
  try {
    answer = { type: "done", results: await carryOut(call) };
  } catch (error) {
    if (!(error instanceof DbError)) throw error;
    answer = { type: "failed", failure: error.failure, message: error.message };
  }
  parentPort?.postMessage(answer);
}

async function carryOut(call: WriterCall): Promise<readonly Rows[]> {
  switch (call.type) {
    case "open":
      writer = await openFileWriter(call.path);
      return NOTHING;
    case "write":
      return opened().write(call.statements, call.options);
    case "script":
      await opened().script(call.sql);
      return NOTHING;
    case "close":
      await opened().close();
      return NOTHING;
  }
}

function opened(): FileWriter {
  if (!writer) throw new DbError("io", "The database is not open");
  return writer;
}
