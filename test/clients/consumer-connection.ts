// One WebSocket of a model: what is on its way in either direction, until somebody delivers it or it is lost.

import type { ClientFrame, ServerFrame } from "../../src/protocol/frames.ts";

export interface Connection {
  readonly socket: ModelSocket;
  /** As it travels. */
  readonly toServer: string[];
  readonly toClient: string[];
  isOpen: boolean;
  /** The server takes nothing new of it. */
  isDraining: boolean;
  /** Acks that were judged and not answered. */
  readonly lateAcks: (() => void)[];
  /** Told of each frame when the client sends it, and just before it gets one. */
  readonly onSent: (frame: ClientFrame) => void;
  readonly onDelivered: (frame: ServerFrame) => void;
}

export class ModelSocket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { readonly data: string }) => void) | null = null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null = null;
  onerror: (() => void) | null = null;
  onSend: (text: string) => void = () => {};
  /** The client has no use for it any more. */
  isClosed = false;

  send(text: string): void {
    if (!this.isClosed) this.onSend(text);
  }

  close(): void {
    this.isClosed = true;
  }
}

export function open(connection: Connection): boolean {
  const { socket, isOpen } = connection;
  if (isOpen || socket.isClosed) return false;
  connection.isOpen = true;
  socket.onopen?.();
  return true;
}

/** The next frame reaches the client. */
export function deliver({ socket, toClient, onDelivered }: Connection): boolean {
  const text = toClient.shift();
  if (text === undefined) return false;
  if (socket.isClosed) return true;
  onDelivered(JSON.parse(text));
  socket.onmessage?.({ data: text });
  return true;
}

/** The client sees it end. What was on its way to it is lost; the server may know nothing of that for long. */
export function cut({ socket, toClient }: Connection, code = 1006): void {
  if (socket.isClosed) return;
  socket.isClosed = true;
  toClient.length = 0;
  socket.onclose?.({ code, reason: "" });
}
