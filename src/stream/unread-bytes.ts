// What a client has not read yet, where the runtime does not tell how much its socket still holds (workerd).
//
// A ping among the frames is a mark: when its pong comes, everything before it has been read. One mark is on its way at
// a time, and none before there is more than a wire and two kernels hold anyway, so a consumer that keeps up is never
// asked. Pongs come in the order of the pings, those of the heartbeat included.

/** Not counted: on other runtimes a socket hands as much to the kernel, and then holds nothing. */
export const ON_THE_WIRE_BYTES = 128 * 1024;

export class UnreadBytes {
  #sentBytes = 0;
  #readBytes = 0;
  #pings = 0;
  #pongs = 0;
  /** Everything before this ping is `upToBytes`. */
  #mark: { readonly ping: number; readonly upToBytes: number } | undefined;

  get bytes(): number {
    return Math.max(0, this.#sentBytes - this.#readBytes - ON_THE_WIRE_BYTES);
  }

  /** A ping is to follow it. */
  get wantsMark(): boolean {
    return this.#mark === undefined && this.bytes > 0;
  }

  noteSent(bytes: number): void {
    this.#sentBytes += bytes;
  }

  notePing(): void {
    this.#pings += 1;
    this.#mark ??= { ping: this.#pings, upToBytes: this.#sentBytes };
  }

  notePong(): void {
    if (this.#pongs === this.#pings) return; // nobody has asked
    this.#pongs += 1;
    if (this.#mark === undefined || this.#pongs < this.#mark.ping) return;
    this.#readBytes = this.#mark.upToBytes;
    this.#mark = undefined;
  }
}
