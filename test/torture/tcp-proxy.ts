// A TCP proxy that cuts all its connections after what was asked has gone through: for a moment nothing comes back any
// more, and then both sides are closed. Whatever is spoken over it, HTTP or WebSocket.

import { createConnection, createServer, type Socket } from "node:net";
import type { Endpoint } from "./stage.ts";

export class TcpProxy implements Disposable, Endpoint {
  /** Connections that were cut. */
  cuts = 0;
  readonly #server;
  readonly #pairs = new Set<{ client: Socket; upstream: Socket; isDeaf: boolean }>();

  constructor(targetPort: number) {
    this.#server = createServer((client) => this.#join(client, createConnection(targetPort, "127.0.0.1")));
    this.#server.listen(0, "127.0.0.1"); // on Bun it has its port at once
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  }

  get streamUrl(): string {
    return `${this.url.replace("http", "ws")}/v1/stream`;
  }

  /** Answers of the next `deafMs` are lost, and then the connections. */
  async cut(deafMs: number): Promise<void> {
    const pairs = [...this.#pairs];
    for (const pair of pairs) pair.isDeaf = true;
    await Bun.sleep(deafMs);
    for (const { client, upstream } of pairs) {
      client.destroy();
      upstream.destroy();
    }
    this.cuts += pairs.length;
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const { client, upstream } of this.#pairs) {
      client.destroy();
      upstream.destroy();
    }
  }

  #join(client: Socket, upstream: Socket): void {
    const pair = { client, upstream, isDeaf: false };
    this.#pairs.add(pair);
    client.on("data", (data) => upstream.write(data));
    upstream.on("data", (data) => {
      if (!pair.isDeaf) client.write(data);
    });
    for (const socket of [client, upstream]) {
      socket.on("error", () => {}); // the close follows
      socket.on("close", () => {
        this.#pairs.delete(pair);
        client.destroy();
        upstream.destroy();
      });
    }
  }
}
