// Browser-safe. Records that could not be handled, as they are put into another topic.

import { decode } from "./batch.ts";
import type { ProducerRecord } from "./producer-records.ts";
import type { DeadLetter, Tenure } from "./tenure.ts";

const ERROR_TEXT_MAX = 1_024;

/** A copy, which says where it is from and why it is here. */
export function letterOf({ topic, partition }: Tenure, { record, error }: DeadLetter): ProducerRecord {
  const { offset, timestamp: _, headers, ...rest } = decode(record);
  return {
    ...rest,
    headers: {
      ...headers,
      "tidemark-error": headerOf(error),
      "tidemark-origin-topic": topic,
      "tidemark-origin-partition": String(partition),
      "tidemark-origin-offset": String(offset),
    },
  };
}

/** What a header may hold: the server takes neither half a surrogate pair nor a NUL. */
function headerOf(error: unknown): string {
  return String(error).slice(0, ERROR_TEXT_MAX).toWellFormed().replaceAll("\0", " ");
}
