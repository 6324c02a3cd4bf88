// What a server asked of the kernel, in order: writes of its WAL, fsyncs, and what it sent to its clients.

import { readFileSync } from "node:fs";

export const TRACE_SKIPPED = "skipped: strace is not here";
export const HAS_STRACE = process.platform === "linux" && Bun.which("strace") !== null;

/** Of a frame or an answer that much is enough to know it. */
const TEXT_BYTES = 400;

export type Call =
  | { readonly kind: "write" | "sync"; readonly path: string }
  | { readonly kind: "reply"; readonly text: string };

/** Words in front of the server's command. */
export function tracePrefix(tracePath: string): readonly string[] {
  const calls = "trace=pwrite64,fsync,fdatasync,sendto,sendmsg,write,writev";
  return ["strace", "-f", "-y", "--seccomp-bpf", "-s", String(TEXT_BYTES), "-e", calls, "-o", tracePath];
}

/** Of the thread that does both, so that the order of the lines is the order of the deeds. */
export function readTrace(tracePath: string, thread: number): readonly Call[] {
  const lines = readFileSync(tracePath, "utf8").split("\n");
  return wholeLines(lines.filter((line) => line.startsWith(`${thread} `))).flatMap(callOf);
}

/** A call during which another thread made one stands on two lines. */
function wholeLines(lines: readonly string[]): readonly string[] {
  let begun = "";
  return lines.flatMap((line) => {
    if (line.includes("<unfinished ...>")) {
      begun = line.replace("<unfinished ...>", "");
      return [];
    }
    const rest = /<\.\.\. \w+ resumed>(.*)$/.exec(line)?.[1];
    return [rest === undefined ? line : begun + rest];
  });
}

function callOf(line: string): readonly Call[] {
  const [, name, target = "", rest = ""] = /^\d+ +(\w+)\(\d+<(.*?)>(.*)$/.exec(line) ?? [];
  if (!rest.includes(" = ") || / = -1 /.test(rest)) return [];
  if (name === "fsync" || name === "fdatasync") return [{ kind: "sync", path: target }];
  if (name === "pwrite64") return [{ kind: "write", path: target }];
  return /^(socket|TCP)/.test(target) ? [{ kind: "reply", text: rest.replaceAll('\\"', '"') }] : [];
}

export interface Judgement {
  readonly replies: number;
  /** Of the WAL. */
  readonly syncs: number;
  /** Replies that were sent while the WAL had writes that no fsync had followed. */
  readonly tooEarly: number;
  /** Replies before which, since the one before, no write of the WAL was fsynced. */
  readonly withoutSync: number;
}

/** Between two marks that were sent in replies, or from the beginning: of the replies with this text. */
export function judgeReplies(
  calls: readonly Call[],
  { text, after, until, wal }: { text: string; after: string; until: string; wal: string },
): Judgement {
  const indexOf = (mark: string) =>
    calls.findIndex((call) => call.kind === "reply" && call.text.includes(mark));
  const judgement = { replies: 0, syncs: 0, tooEarly: 0, withoutSync: 0 };
  let unsynced = 0;
  let hasSynced = false;
  for (const call of calls.slice(indexOf(after) + 1, indexOf(until))) {
    if (call.kind === "write" && call.path === wal) unsynced += 1;
    if (call.kind === "sync" && call.path === wal) {
      judgement.syncs += 1;
      hasSynced ||= unsynced > 0;
      unsynced = 0;
    }
    if (call.kind !== "reply" || !call.text.includes(text)) continue;
    judgement.replies += 1;
    if (unsynced > 0) judgement.tooEarly += 1;
    if (!hasSynced) judgement.withoutSync += 1;
    hasSynced = false;
  }
  return judgement;
}
