// A real WebSocket that loses what a test says: the request went through, the answer does not come, the connection ends.

import { PLATFORM, type Platform } from "../../clients/typescript/platform.ts";

export interface LossyPlatform extends Platform {
  /** Asked for each frame from the server; true: it is lost, and the connection with it. */
  isLost: (frame: string) => boolean;
  /** Every frame that went to a server. */
  readonly sent: string[];
  lost: number;
}

export function lossyPlatform(): LossyPlatform {
  const platform: LossyPlatform = {
    ...PLATFORM,
    isLost: () => false,
    sent: [],
    lost: 0,
    openSocket: (url) => new LossySocket(url, platform) as unknown as WebSocket, // what a connection uses of one
  };
  return platform;
}

class LossySocket {
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: { readonly data: unknown }) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null = null;
  readonly #socket: WebSocket;
  readonly #platform: LossyPlatform;

  constructor(url: string, platform: LossyPlatform) {
    this.#platform = platform;
    this.#socket = new WebSocket(url);
    this.#socket.onopen = (event) => this.onopen?.(event);
    this.#socket.onmessage = ({ data }) => this.#receive(data);
    this.#socket.onerror = (event) => this.onerror?.(event);
    this.#socket.onclose = (event) => this.onclose?.(event);
  }

  send(text: string): void {
    this.#platform.sent.push(text);
    this.#socket.send(text);
  }

  close(code?: number): void {
    this.#socket.close(code);
  }

  #receive(data: unknown): void {
    if (!this.#platform.isLost(String(data))) return this.onmessage?.({ data });
    this.#platform.lost += 1;
    this.#socket.onmessage = null;
    this.#socket.onclose = null;
    this.#socket.terminate();
    this.onclose?.({ code: 1006, reason: "" });
  }
}
