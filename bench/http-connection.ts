// A keep-alive connection that posts one body after the other, as load generators do: `fetch` would take more of the
// machine than the server that is measured.

import { connect, type Socket } from "node:net";

const HEAD_END = "\r\n\r\n";

export class HttpConnection {
  readonly #socket: Socket;
  readonly #host: string;
  #received = "";
  #onBytes: () => void = () => {};

  private constructor(socket: Socket, host: string) {
    this.#socket = socket;
    this.#host = host;
    socket.setEncoding("utf8");
    socket.setNoDelay(true);
    socket.on("data", (text: string) => {
      this.#received += text;
      this.#onBytes();
    });
  }

  static open(url: string): Promise<HttpConnection> {
    const { hostname, port, host } = new URL(url);
    return new Promise((resolve, reject) => {
      const socket = connect(Number(port), hostname, () => resolve(new HttpConnection(socket, host)));
      socket.once("error", reject);
    });
  }

  /** Rejects where the answer is not 200. */
  post(path: string, body: string): Promise<void> {
    const head = [
      `POST ${path} HTTP/1.1`,
      `Host: ${this.#host}`,
      `Content-Length: ${Buffer.byteLength(body)}`,
    ];
    this.#socket.write(`${head.join("\r\n")}${HEAD_END}${body}`);
    return new Promise((resolve, reject) => {
      this.#onBytes = () => {
        const answer = this.#takeAnswer();
        if (answer === undefined) return;
        if (answer.startsWith("HTTP/1.1 200")) resolve();
        else reject(new Error(answer));
      };
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Undefined until all of it is there. Answers are ASCII. */
  #takeAnswer(): string | undefined {
    const headEnd = this.#received.indexOf(HEAD_END);
    if (headEnd === -1) return undefined;
    const [, length = "0"] = this.#received.match(/content-length: (\d+)/i) ?? [];
    const end = headEnd + HEAD_END.length + Number(length);
    if (this.#received.length < end) return undefined;
    const answer = this.#received.slice(0, end);
    this.#received = this.#received.slice(end);
    return answer;
  }
}
