// A WebSocket client as bytes: one that can stop reading, and can send what no well-behaved client sends.

import { connect, type Socket } from "node:net";

const TEXT = 0x1;
const CLOSE = 0x8;

export class RawSocket {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  readonly #closed: Promise<void>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
    });
    socket.on("error", () => undefined); // a reset is an end like any other: `close` follows
    this.#closed = new Promise((resolve) => socket.once("close", () => resolve()));
  }

  /** Resolves when the server has agreed to the upgrade; from then on nothing is read until `readToEnd`. */
  static async openSilent(url: string): Promise<RawSocket> {
    const { hostname, port, host, pathname, search } = new URL(url);
    const socket = connect(Number(port), hostname);
    socket.write(
      `GET ${pathname}${search} HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    const answer = await new Promise<Buffer>((resolve, reject) => {
      socket.once("data", resolve);
      socket.once("error", reject);
    });
    if (!answer.toString("latin1").startsWith("HTTP/1.1 101 ")) throw new Error(`refused: ${answer}`);
    return new RawSocket(socket.pause());
  }

  /** Each as a text frame, whatever the bytes are. Resolves when they have left this process. */
  send(payloads: readonly (string | Uint8Array)[]): Promise<void> {
    const bytes = Buffer.concat(payloads.map((payload) => frameBytes(TEXT, Buffer.from(payload))));
    return new Promise((resolve) => this.#socket.write(bytes, () => resolve())); // also when it is closed
  }

  /** All texts that came, and the code of the close frame, if one did. */
  async readToEnd(): Promise<{ texts: readonly string[]; code: number | undefined }> {
    this.#socket.resume();
    await this.#closed;
    return readFrames(this.#received);
  }

  /** Drops the connection, and all that was sent and not read. */
  close(): void {
    this.#socket.destroy();
  }
}

/** A masked client frame; a mask of zeros leaves the payload as it is. */
function frameBytes(opcode: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(14);
  header[0] = 0x80 | opcode;
  header[1] = 0x80 | 127;
  header.writeBigUInt64BE(BigInt(payload.length), 2);
  return Buffer.concat([shortHeader(opcode, payload.length) ?? header, payload]);
}

function shortHeader(opcode: number, length: number): Buffer | undefined {
  if (length < 126) return Buffer.from([0x80 | opcode, 0x80 | length, 0, 0, 0, 0]);
  if (length > 0xffff) return undefined;
  return Buffer.from([0x80 | opcode, 0x80 | 126, length >> 8, length & 0xff, 0, 0, 0, 0]);
}

function readFrames(bytes: Buffer): { texts: readonly string[]; code: number | undefined } {
  const texts: string[] = [];
  let code: number | undefined;
  for (let at = 0; at + 2 <= bytes.length; ) {
    const opcode = (bytes[at] ?? 0) & 0x0f;
    const short = (bytes[at + 1] ?? 0) & 0x7f;
    const start = at + (short === 127 ? 10 : short === 126 ? 4 : 2);
    if (start > bytes.length) break;
    const length =
      short === 127
        ? Number(bytes.readBigUInt64BE(at + 2))
        : short === 126
          ? bytes.readUInt16BE(at + 2)
          : short;
    const payload = bytes.subarray(start, start + length);
    if (payload.length < length) break; // cut off by the end of the connection
    if (opcode === TEXT) texts.push(payload.toString("utf8"));
    if (opcode === CLOSE && length >= 2) code = payload.readUInt16BE(0);
    at = start + length;
  }
  return { texts, code };
}
