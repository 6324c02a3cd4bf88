// The schemas of topics, compiled: once for each version of each, however many records are held against it.

import { compileRecordSchema, type RecordSchema } from "../core/schema/record-schema.ts";
import type { Topic } from "../store/topic-tables.ts";

interface Compiled {
  readonly topicId: number;
  readonly schemaVersion: number;
  readonly schema: Promise<RecordSchema>;
}

export class RecordSchemas {
  readonly #compiledByTopic = new Map<string, Compiled>();

  /** Undefined where the topic takes any JSON. */
  async of({ topic, topicId, schema: text, schemaVersion }: Topic): Promise<RecordSchema | undefined> {
    if (text === null) return undefined;
    const known = this.#compiledByTopic.get(topic);
    if (known?.topicId === topicId && known.schemaVersion === schemaVersion) return known.schema;
    const schema = compileRecordSchema(JSON.parse(text));
    this.#compiledByTopic.set(topic, { topicId, schemaVersion, schema });
    return schema;
  }

  /** A topic that is gone. */
  forget(topic: string): void {
    this.#compiledByTopic.delete(topic);
  }
}
