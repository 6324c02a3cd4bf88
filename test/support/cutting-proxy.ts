// A TCP proxy in front of a database that loses answers and holds requests back. Requests are taken whole, so that each
// is judged by its text. A lost answer: the request goes through, and the connection is cut instead of handing the
// answer on. A request that is held goes through when the test says so, long after its client has given it up.

import { createConnection, createServer, type Socket } from "node:net";

export class CuttingProxy implements Disposable {
  /** Asked when the answer to a request comes; true: it is lost. */
  isLost: (request: string) => boolean = () => false;
  /** Asked before a request goes through; true: it is held. */
  isHeld: (request: string) => boolean = () => false;
  /** How many answers were lost. */
  lost = 0;
  /** The text of every request, head and body, in the order of their coming. */
  readonly requests: string[] = [];
  readonly #targetPort: number;
  readonly #server;
  readonly #sockets = new Set<Socket>();
  readonly #held: Buffer[] = [];

  constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#server = createServer((client) => this.#serve(client));
    this.#server.listen(0, "127.0.0.1"); // on Bun it has its port at once
  }

  /** For `--db`. */
  get url(): string {
    const address = this.#server.address();
    return `http://localhost:${typeof address === "object" ? address?.port : ""}`;
  }

  get held(): number {
    return this.#held.length;
  }

  /** Resolves when all that was held is answered; nobody is told what. */
  async letThrough(): Promise<void> {
    for (const request of this.#held.splice(0)) {
      const upstream = this.#connect();
      upstream.write(request);
      await new Promise<void>((resolve) => upstream.once("data", () => resolve()));
      upstream.destroy();
    }
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #serve(client: Socket): void {
    this.#keep(client);
    const upstream = this.#connect();
    let unread = Buffer.alloc(0);
    let request: string | undefined;
    client.on("data", (data) => {
      unread = Buffer.concat([unread, Buffer.from(data)]);
      const bytes = requestBytes(unread);
      if (bytes === undefined) return;
      const whole = unread.subarray(0, bytes);
      unread = unread.subarray(bytes);
      request = whole.toString();
      this.requests.push(request);
      if (this.isHeld(request)) this.#held.push(whole);
      else upstream.write(whole);
    });
    upstream.on("data", (data) => {
      if (request !== undefined && this.isLost(request)) {
        this.lost += 1;
        client.destroy();
        upstream.destroy();
      } else client.write(data);
      request = undefined; // the rest of the answer goes the way of its beginning
    });
    client.on("close", () => upstream.destroy());
    upstream.on("close", () => client.destroy());
  }

  #connect(): Socket {
    return this.#keep(createConnection(this.#targetPort, "127.0.0.1"));
  }

  #keep(socket: Socket): Socket {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => {}); // the close follows
    return socket;
  }
}

/** Undefined until the first request in them is whole. */
function requestBytes(data: Buffer): number | undefined {
  const headEnd = data.indexOf("\r\n\r\n");
  if (headEnd === -1) return undefined;
  const [, length = "0"] = data.toString("latin1", 0, headEnd).match(/^content-length: *(\d+)/im) ?? [];
  const bytes = headEnd + 4 + Number(length);
  return data.length >= bytes ? bytes : undefined;
}
