// The seam between a runtime's WebSocket and a connection. A runtime's adapter calls the handlers; a connection calls
// the port. Hono is not asked: its helper hides how much a socket still holds.

export interface SocketPort {
  send(text: string): void;
  /** What was sent and has not left the server yet. */
  bufferedBytes(): number;
  close(code: number, reason: string): void;
  /** A protocol-level ping, where the runtime has one and tells of its pong. */
  ping?(): void;
}

export interface SocketHandlers {
  /** Once, when the adapter has these handlers in place: closing may call `onClose` before it returns. */
  onOpen(): void;
  /** A text frame; undefined for a binary one. */
  onMessage(text: string | undefined): void;
  onPong(): void;
  /** The socket holds less than it did. */
  onDrain(): void;
  /** Once, however the socket ended. */
  onClose(): void;
}
