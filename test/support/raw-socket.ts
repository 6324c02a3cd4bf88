// A WebSocket client as bytes: one that can stop reading, and can send what no well-behaved client sends.

import { connect, type Socket } from "node:net";

export const OPCODE = {
  continuation: 0x0,
  text: 0x1,
  binary: 0x2,
  close: 0x8,
  ping: 0x9,
  pong: 0xa,
} as const;

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
    return this.write(Buffer.concat(payloads.map((payload) => frameBytes(OPCODE.text, payload))));
  }

  /** Whatever these bytes are: no frames need be among them. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.#socket.write(bytes, () => resolve())); // also when it is closed
  }

  /** Says that nothing more will come, and goes on listening. */
  end(): void {
    this.#socket.end();
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

interface FrameOptions {
  /** Of all parts of a message only the last is. */
  readonly isFinal?: boolean;
  readonly isMasked?: boolean;
  /** The three bits that are to be 0. */
  readonly reserved?: number;
  /** What the header says where that is not true. */
  readonly declaredLength?: bigint;
}

/** One frame as a client sends it, or as it must not; a mask of zeros leaves the payload as it is. */
export function frameBytes(
  opcode: number,
  content: string | Uint8Array,
  { isFinal = true, isMasked = true, reserved = 0, declaredLength }: FrameOptions = {},
): Buffer {
  const payload = Buffer.from(content);
  const first = (isFinal ? 0x80 : 0) | (reserved << 4) | opcode;
  const length = lengthBytes(declaredLength ?? BigInt(payload.length), isMasked ? 0x80 : 0);
  return Buffer.concat([Buffer.from([first]), length, Buffer.alloc(isMasked ? 4 : 0), payload]);
}

function lengthBytes(length: bigint, maskBit: number): Buffer {
  if (length < 126n) return Buffer.from([maskBit | Number(length)]);
  const isShort = length <= 0xffffn;
  const bytes = Buffer.alloc(isShort ? 3 : 9);
  bytes[0] = maskBit | (isShort ? 126 : 127);
  if (isShort) bytes.writeUInt16BE(Number(length), 1);
  else bytes.writeBigUInt64BE(length, 1);
  return bytes;
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
    if (opcode === OPCODE.text) texts.push(payload.toString("utf8"));
    if (opcode === OPCODE.close && length >= 2) code = payload.readUInt16BE(0);
    at = start + length;
  }
  return { texts, code };
}
