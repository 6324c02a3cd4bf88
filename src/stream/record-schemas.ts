// The schemas of topics, compiled: once for each version of each, however many records are held against it.
//
// What compiles them is loaded when the first topic has one: a server without schemas starts in two thirds of the time.

import type { RecordSchema } from "../core/schema/record-schema.ts";
import type { TopicAppend } from "../core/transaction.ts";
import type { Topic } from "../store/topic-tables.ts";

interface Compiled {
  readonly topicId: number;
  readonly schemaVersion: number;
  readonly schema: Promise<RecordSchema>;
}

const load = () => import("../core/schema/record-schema.ts");

export class RecordSchemas {
  readonly #compiledByTopic = new Map<string, Compiled>();

  /** Throws `schema_violation` for the first record that the topic's schema does not allow. */
  async require({ records, ...place }: TopicAppend, topic: Topic): Promise<void> {
    if (topic.schema === null) return;
    const { requireSchema } = await load();
    requireSchema(records, await this.#of(topic, topic.schema), place);
  }

  /** A topic that is gone. */
  forget(topic: string): void {
    this.#compiledByTopic.delete(topic);
  }

  #of({ topic, topicId, schemaVersion }: Topic, text: string): Promise<RecordSchema> {
    const known = this.#compiledByTopic.get(topic);
    if (known?.topicId === topicId && known.schemaVersion === schemaVersion) return known.schema;
    const schema = compile(text);
    this.#compiledByTopic.set(topic, { topicId, schemaVersion, schema });
    return schema;
  }
}

/** Throws `bad_request` where it is no JSON Schema. */
export async function requireJsonSchema(schema: unknown): Promise<void> {
  const { compileRecordSchema } = await load();
  await compileRecordSchema(schema);
}

async function compile(text: string): Promise<RecordSchema> {
  const { compileRecordSchema } = await load();
  return compileRecordSchema(JSON.parse(text));
}
