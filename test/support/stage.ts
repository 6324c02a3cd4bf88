// What the tests of a file share: one real server, and for each test topics, groups and members of its own.

import { afterAll, beforeAll, expect } from "bun:test";
import { join } from "node:path";
import type { AckEntry, AssignedPartition } from "../../src/protocol/frames.ts";
import { HttpClient } from "./http-client.ts";
import { type ServerOptions, startServer, type TestServer, temporaryFolder } from "./server.ts";
import { stockSqlite } from "./stock-sqlite.ts";
import { type FrameOf, StreamClient } from "./stream-client.ts";

const PATIENCE_MS = 4_000;
const DEFECT = /event="(defect|\w+ failed)"/;

export interface GroupMember {
  readonly client: StreamClient;
  readonly subscribed: FrameOf<"subscribed">;
  readonly partitions: readonly AssignedPartition[];
}

export class Stage {
  #server: TestServer | undefined;
  #names = 0;

  /** Its server runs from before the first test of the file to after the last. */
  constructor(options: ServerOptions = {}) {
    const folder = temporaryFolder();
    beforeAll(async () => {
      this.#server = await startServer(join(folder.path, "t.db"), options);
    });
    afterAll(async () => {
      await this.#server?.kill("SIGKILL");
      folder.remove();
    });
  }

  get server(): TestServer {
    if (!this.#server) throw new Error("the server has not been started");
    return this.#server;
  }

  get http(): HttpClient {
    return new HttpClient(this.server);
  }

  /** Each of its partitions has so many records whose values are their offsets. */
  readonly newTopic = async (partitionCount = 1, recordsEach = 0): Promise<string> => {
    const topic = this.newName("topic");
    await this.http.createTopic(topic, partitionCount);
    for (let partition = 0; partition < partitionCount && recordsEach > 0; partition += 1)
      await this.http.produceNumbers(topic, recordsEach, partition);
    return topic;
  };

  readonly newGroup = (): string => this.newName("group");

  readonly newName = (prefix: string): string => {
    this.#names += 1;
    return `${prefix}-${this.#names}`;
  };

  /** A wait for a frame that does not come fails. */
  readonly open = (query = ""): Promise<StreamClient> =>
    StreamClient.open(this.server.streamUrl + query, { patienceMs: PATIENCE_MS });

  /** Subscribes on a socket of its own; what it is assigned at first has come. */
  readonly joinGroup = async (
    group: string,
    topics: readonly string[],
    fields: Readonly<Record<string, unknown>> = {},
  ): Promise<GroupMember> => {
    const client = await this.open();
    client.send({ type: "subscribe", topics, group, ...fields });
    const subscribed = await client.expect("subscribed");
    const { partitions } = await client.expect("assigned");
    return { client, subscribed, partitions };
  };

  /** By topic and partition; null where nothing is committed. */
  readonly committedOf = async (group: string): Promise<readonly (number | null)[]> => {
    const { body } = await this.http.call("GET", `/v1/groups/${group}`);
    return body.offsets.map(({ committedOffset }: { committedOffset: number | null }) => committedOffset);
  };

  /** What stock sqlite3 prints. */
  readonly sql = (text: string): string => stockSqlite(this.server.databasePath, text);

  readonly expectNoDefects = (): void => {
    expect(this.server.logged.split("\n").filter((line) => DEFECT.test(line))).toEqual([]);
  };
}

export function ackOf({ topic, partition, generation, next }: FrameOf<"records">): AckEntry {
  return { topic, partition, generation, offset: next };
}

export function valuesOf(frames: readonly FrameOf<"records">[]): readonly unknown[] {
  return frames.flatMap(({ records }) => records.map(({ value }) => value));
}

export function countFrom(first: number, end: number): readonly number[] {
  return Array.from({ length: end - first }, (_, index) => first + index);
}
