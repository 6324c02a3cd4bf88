// A TCP proxy between a client and a server that cuts connections in the middle of what goes through, and holds it back.

import { createConnection, createServer, type Socket } from "node:net";
import type { AnyServer } from "./server.ts";

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
  /** How many bytes of the server still go through, before it is cut. */
  left: number;
}

export class FaultyProxy implements Disposable {
  /** Connections that were cut. */
  cuts = 0;
  readonly #server;
  readonly #pairs = new Set<Pair>();
  #cutsAfter: number[] = [];
  #cutsBehind: string | undefined;

  constructor({ url }: Pick<AnyServer, "url">) {
    const port = Number(new URL(url).port);
    this.#server = createServer((client) => this.#join(client, createConnection(port, "127.0.0.1")));
    this.#server.listen(0, "127.0.0.1"); // on Bun it has its port at once
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  }

  /** Each of the next connections is cut when so many bytes of the server's have gone through, wherever that is. */
  cutEachAfter(bytes: readonly number[]): void {
    this.#cutsAfter = [...bytes];
    this.cut();
  }

  /** The connection on which the server says this next is cut behind it, so that no answer to it arrives. Once. */
  cutBehind(text: string): void {
    this.#cutsBehind = text;
  }

  cut(): void {
    for (const pair of this.#pairs) this.#cutPair(pair);
  }

  /** Nothing more goes through on the connections that there are, and none of them closes. Others work. */
  stall(): void {
    for (const { client, upstream } of this.#pairs) {
      client.pause();
      upstream.pause();
    }
  }

  [Symbol.dispose](): void {
    this.#server.close();
    this.cut();
  }

  #cutPair({ client, upstream }: Pair): void {
    this.cuts += 1;
    client.destroy();
    upstream.destroy();
  }

  #join(client: Socket, upstream: Socket): void {
    const pair = { client, upstream, left: this.#cutsAfter.shift() ?? Infinity };
    this.#pairs.add(pair);
    client.on("data", (data) => upstream.write(data));
    upstream.on("data", (data) => this.#pass(pair, Buffer.from(data)));
    for (const socket of [client, upstream]) {
      socket.on("error", () => {}); // the close follows
      socket.on("close", () => {
        this.#pairs.delete(pair);
        client.destroy();
        upstream.destroy();
      });
    }
  }

  #pass(pair: Pair, data: Buffer): void {
    if (this.#cutsBehind !== undefined && data.includes(this.#cutsBehind)) {
      this.#cutsBehind = undefined;
      pair.left = data.length;
    }
    const passed = data.subarray(0, pair.left);
    pair.left -= passed.length;
    if (pair.left > 0) return void pair.client.write(passed);
    pair.client.end(passed, () => this.#cutPair(pair));
    pair.left = Infinity;
    pair.upstream.removeAllListeners("data");
  }
}
