// The HTTP side of a server, for tests that want a topic with records in it and go on over the socket.

import type { TestServer } from "./server.ts";

export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: a test says by its expectations what it wants to find
  readonly body: any;
}

export class HttpClient {
  readonly #url: string;

  constructor({ url }: Pick<TestServer, "url">) {
    this.#url = url;
  }

  async call(method: string, path: string, body?: unknown): Promise<Answer> {
    const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    const response = await fetch(`${this.#url}${path}`, {
      method,
      ...(text !== undefined && { body: text }),
    });
    const answer = await response.text();
    return { status: response.status, body: answer === "" ? undefined : JSON.parse(answer) };
  }

  async createTopic(topic: string, partitionCount = 1): Promise<void> {
    await this.#succeed("PUT", `/v1/topics/${topic}`, { partitionCount });
  }

  async produce(topic: string, records: readonly unknown[]): Promise<void> {
    await this.#succeed("POST", `/v1/topics/${topic}/records`, { records });
  }

  /** Records of one partition whose values are their offsets, from an empty partition on. */
  async produceNumbers(topic: string, count: number, partition = 0): Promise<void> {
    await this.produce(
      topic,
      Array.from({ length: count }, (_, value) => ({ value, partition, timestamp: 1_000 + value })),
    );
  }

  async #succeed(method: string, path: string, body: unknown): Promise<void> {
    const answer = await this.call(method, path, body);
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${JSON.stringify(answer)}`);
  }
}
