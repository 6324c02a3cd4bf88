// The client of the benchmark: plain fetch and plain frames, nothing that a user would not write.

import type { ClientFrame, RecordsFrame, ServerFrame } from "../src/protocol/frames.ts";
import type { AnyServer } from "../test/support/server.ts";

/** A records frame whose values are earthquakes. */
export type QuakesFrame = Omit<RecordsFrame, "records"> & {
  readonly records: readonly { readonly offset: number; readonly value: { readonly id: string } }[];
};
export type BenchFrame = Exclude<ServerFrame, RecordsFrame> | QuakesFrame;

export async function createTopic({ url }: AnyServer, topic: string, partitionCount: number): Promise<void> {
  await call(`${url}/v1/topics/${topic}`, { method: "PUT", body: JSON.stringify({ partitionCount }) });
}

export async function produce({ url }: AnyServer, topic: string, body: string): Promise<void> {
  await call(`${url}/v1/topics/${topic}/records`, { method: "POST", body });
}

export async function call(url: string, init: RequestInit): Promise<void> {
  const response = await fetch(url, init);
  const text = await response.text();
  if (!response.ok) throw new Error(text);
}

export function bodyOf(values: readonly string[]): string {
  return `{"records":[${values.map((value) => `{"value":${value}}`).join(",")}]}`;
}

/** What an ack takes from a records frame. */
type Acknowledged = Pick<RecordsFrame, "topic" | "partition" | "generation" | "next">;

export class BenchSocket {
  /** Whatever comes but pings, unparsed. */
  onText: (text: string) => void = (text) => this.onFrame(JSON.parse(text));
  onFrame: (frame: BenchFrame) => void = () => {};
  onFailure: (error: Error) => void = (error) => {
    throw error;
  };
  readonly #socket: WebSocket;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      if (data === PING) this.send({ type: "pong" });
      else this.onText(data);
    };
    socket.onclose = ({ code }) => this.onFailure(new Error(`the socket was closed: ${code}`));
  }

  static open(url: string): Promise<BenchSocket> {
    const socket = new WebSocket(url);
    return new Promise((resolve, reject) => {
      socket.onopen = () => resolve(new BenchSocket(socket));
      socket.onerror = () => reject(new Error(`cannot connect to ${url}`));
    });
  }

  send(frame: ClientFrame): void {
    this.#socket.send(JSON.stringify(frame));
  }

  sendText(text: string): void {
    this.#socket.send(text);
  }

  ack({ topic, partition, generation, next: offset }: Acknowledged): void {
    this.send({ type: "ack", offsets: [{ topic, partition, generation, offset }] });
  }

  /** Until a frame of this type comes. Rejects with an error frame or when the socket closes. */
  until<T extends BenchFrame["type"]>(type: T): Promise<Extract<BenchFrame, { type: T }>> {
    return new Promise((resolve, reject) => {
      this.onFailure = reject;
      this.onFrame = (frame) => {
        if (frame.type === "error") reject(new Error(JSON.stringify(frame)));
        if (frame.type === type) resolve(frame as Extract<BenchFrame, { type: T }>); // of that type
      };
    });
  }

  close(): void {
    this.#socket.onclose = null;
    this.#socket.close();
  }
}

const PING = '{"type":"ping"}';
