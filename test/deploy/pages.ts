// A page of deploy/: its numbered steps, each with what is to be pasted and the answer that it promises.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "../support/server.ts";

export interface Page {
  /** In deploy/. */
  readonly path: string;
  readonly text: string;
  readonly steps: readonly PageStep[];
}

export interface PageStep {
  readonly number: number;
  readonly text: string;
  readonly commands: string;
  /** The JSON below the commands, where there is some. */
  readonly answer: string | undefined;
}

export function readPage(path: string): Page {
  const text = readFileSync(join(REPOSITORY, "deploy", path), "utf8");
  const [numbered = ""] = text.split("\n## ");
  return {
    path,
    text,
    steps: numbered
      .split(/^(?=\d+\. )/m)
      .slice(1)
      .map(stepOf),
  };
}

function stepOf(text: string): PageStep {
  const blocks = [...text.matchAll(/^ *```sh\n(.*?)^ *```$/gms)].map(([, block]) => block ?? "");
  const answer = text.match(/^ *`(\{.*\})`$/m)?.[1];
  return { number: Number.parseInt(text, 10), text, commands: blocks.join("").replace(/^ +/gm, ""), answer };
}

/** The settings that the program tells of, as they are named in the pages and the files beside them. */
export const SETTING = /\b(?:TIDEMARK|TURSO)_[A-Z_]+\b/g;

/** `code` in prose, where a flag or a path is one of ours. What stands in blocks may be Docker's or Fly's. */
export function wordsOfProse({ text }: Page): readonly string[] {
  const prose = text.replace(/^ *```.*?^ *```$/gms, "");
  return [...prose.matchAll(/`([^`]+)`/g)].map(([, word]) => word ?? "");
}

export function linksOf({ text }: Page): readonly string[] {
  return [...text.matchAll(/\]\(([^)#]+)\)/g)].map(([, link]) => link ?? "");
}
