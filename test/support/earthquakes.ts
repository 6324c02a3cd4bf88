// The real input: the whole catalogue where it lies beside the repository, else the sample that comes with it.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

const WHOLE = join(import.meta.dir, "../../../shared/data/earthquakes.ndjson.gz");
const SAMPLE = join(import.meta.dir, "../data/earthquakes-sample.ndjson");

export interface Earthquakes {
  /** One JSON object each, as in the file. */
  readonly lines: readonly string[];
  readonly source: "whole file" | "sample";
}

export function readEarthquakes(): Earthquakes {
  const isWhole = existsSync(WHOLE);
  const text = isWhole ? gunzipSync(readFileSync(WHOLE)).toString("utf8") : readFileSync(SAMPLE, "utf8");
  return { lines: text.trimEnd().split("\n"), source: isWhole ? "whole file" : "sample" };
}

/** NDJSON bodies of that many lines. */
export function bodiesOf(lines: readonly string[], linesPerBody: number): readonly (readonly string[])[] {
  const bodies: (readonly string[])[] = [];
  for (let first = 0; first < lines.length; first += linesPerBody) {
    bodies.push(lines.slice(first, first + linesPerBody));
  }
  return bodies;
}
