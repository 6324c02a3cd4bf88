import type { LogRef } from "./history.ts";

/** Of maps. */
export function logKey({ topicId, partition }: LogRef): string {
  return `${topicId}/${partition}`;
}
