// HTTP as bytes: for requests that fetch would correct, complete or refuse to send.

import { connect } from "node:net";

export interface RawAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** `head`: request line and headers; `Host` and `Connection: close` are added where they are absent. */
export function sendRaw(
  url: string,
  head: readonly string[],
  body: string | Uint8Array = "",
): Promise<RawAnswer> {
  const { host, hostname, port } = new URL(url);
  const lines = [...head];
  if (!hasHeader(head, "host")) lines.push(`Host: ${host}`);
  if (!hasHeader(head, "connection")) lines.push("Connection: close");
  return exchange({ hostname, port: Number(port) }, [`${lines.join("\r\n")}\r\n\r\n`, body]);
}

/** A body in chunks of that size, without a content-length. */
export function chunkedBody(body: Uint8Array, chunkBytes: number): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < body.length; at += chunkBytes) {
    const chunk = body.subarray(at, at + chunkBytes);
    parts.push(Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from("\r\n"));
  }
  return Buffer.concat([...parts, Buffer.from("0\r\n\r\n")]);
}

function hasHeader(head: readonly string[], name: string): boolean {
  return head.some((line) => line.toLowerCase().startsWith(`${name}:`));
}

function exchange(
  { hostname, port }: { hostname: string; port: number },
  parts: readonly (string | Uint8Array)[],
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(port, hostname, () => {
      for (const part of parts) if (part.length > 0) socket.write(part);
    });
    const finish = (error?: Error) => {
      const answer = answerOf(Buffer.concat(chunks));
      socket.destroy();
      if (answer) resolve(answer);
      else reject(error ?? new Error(`no answer to ${String(parts[0]).slice(0, 80)}`));
    };
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      // A server that refuses a body early may leave the connection open for the rest of it.
      if (isWhole(Buffer.concat(chunks))) finish();
    });
    socket.on("error", finish);
    socket.on("close", () => finish());
  });
}

function answerOf(bytes: Buffer): RawAnswer | undefined {
  const end = bytes.indexOf("\r\n\r\n");
  if (end === -1) return undefined;
  const [statusLine = "", ...headerLines] = bytes.subarray(0, end).toString("latin1").split("\r\n");
  const headers = new Headers(
    headerLines.map((line): [string, string] => [
      line.slice(0, line.indexOf(":")),
      line.slice(line.indexOf(":") + 1).trim(),
    ]),
  );
  return {
    status: Number(statusLine.split(" ")[1]),
    headers,
    body: bytes.subarray(end + 4).toString("utf8"),
  };
}

function isWhole(bytes: Buffer): boolean {
  const answer = answerOf(bytes);
  const length = answer?.headers.get("content-length");
  if (answer?.status === 101) return true; // what follows is no longer HTTP
  return answer !== undefined && length != null && Buffer.byteLength(answer.body) >= Number(length);
}
