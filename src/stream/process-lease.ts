// This server's own lease on a shared database: while it runs, the members that hang on its sockets may live.

import type { Log, Scheduler } from "../core/ports.ts";
import { PROCESS_LEASE_MS } from "../protocol/limits.ts";
import { endProcess, keepProcess } from "../store/processes.ts";
import type { WriteQueue } from "../store/write-queue.ts";

const RENEW_EVERY_MS = PROCESS_LEASE_MS / 4;

export interface ProcessLeaseDeps {
  readonly processId: string;
  readonly queue: WriteQueue;
  readonly scheduler: Scheduler;
  readonly log: Log;
  /** It may have run out through no fault of this process. */
  readonly onOutage: () => void;
}

export class ProcessLease {
  readonly #deps: ProcessLeaseDeps;
  #isHeld = false;
  /** The timer runs. After letGo() it runs on until it next goes off, and only then ends. */
  #isRenewing = false;

  constructor(deps: ProcessLeaseDeps) {
    this.#deps = deps;
  }

  /** Whoever joins writes it too; from then on it is renewed here. */
  hold(): void {
    this.#isHeld = true;
    if (this.#isRenewing) return;
    this.#isRenewing = true;
    this.#renewLater();
  }

  letGo(): void {
    this.#isHeld = false;
  }

  /** The server is about to stop. */
  async end(): Promise<void> {
    this.letGo();
    const { queue, processId, log } = this.#deps;
    await queue.submit(endProcess(processId)).catch((error: unknown) => {
      log("process lease not ended", { message: String(error) }); // it runs out
    });
  }

  #renewLater(): void {
    this.#deps.scheduler.after(RENEW_EVERY_MS, () => void this.#renew());
  }

  async #renew(): Promise<void> {
    const { queue, processId, log, onOutage } = this.#deps;
    this.#isRenewing = this.#isHeld;
    if (!this.#isRenewing) return;
    await queue.submit(keepProcess(processId)).catch((error: unknown) => {
      log("process lease not renewed", { message: String(error) });
      onOutage();
    });
    this.#renewLater();
  }
}
