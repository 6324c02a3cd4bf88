// A real browser, without a window, driven by its own protocol: https://chromedevtools.github.io/devtools-protocol/.

import { join } from "node:path";
import { Output, temporaryFolder } from "./server.ts";

/** From Debian; null where it is not installed. */
export const CHROMIUM = Bun.which("chromium");

const FLAGS = [
  ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
  ...["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"],
];
const LISTENING = /DevTools listening on (ws:\S+)/;

type Parameters = Readonly<Record<string, unknown>>;

interface Reply {
  readonly id?: number;
  readonly result?: Record<string, never>;
  readonly error?: { readonly message: string };
}

export class Chromium implements AsyncDisposable {
  readonly #child: Bun.Subprocess;
  readonly #socket: WebSocket;
  readonly #folder: ReturnType<typeof temporaryFolder>;
  readonly #waiting = new Map<number, (reply: Reply) => void>();
  #lastId = 0;

  private constructor(child: Bun.Subprocess, socket: WebSocket, folder: ReturnType<typeof temporaryFolder>) {
    this.#child = child;
    this.#socket = socket;
    this.#folder = folder;
    socket.onmessage = ({ data }) => {
      const reply: Reply = JSON.parse(String(data));
      if (reply.id === undefined) return; // an event: nobody asked for it
      this.#waiting.get(reply.id)?.(reply);
      this.#waiting.delete(reply.id);
    };
  }

  static async start(): Promise<Chromium> {
    const folder = temporaryFolder();
    const profile = `--user-data-dir=${join(folder.path, "profile")}`;
    const child = Bun.spawn([CHROMIUM ?? "", ...FLAGS, profile, "about:blank"], {
      stderr: "pipe",
      stdout: "ignore",
    });
    const stderr = new Output(child.stderr, child);
    if (!(await stderr.until(LISTENING))) throw new Error(`chromium: ${await stderr.whole}`);
    const [, url = ""] = stderr.text.match(LISTENING) ?? [];
    const socket = new WebSocket(url);
    await new Promise<unknown>((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    return new Chromium(child, socket, folder);
  }

  /** A tab of its own, in front of all others, with this page. */
  async open(url: string): Promise<Tab> {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab(this, String(targetId), String(sessionId));
    await tab.send("Page.enable");
    await tab.send("Page.navigate", { url });
    return tab;
  }

  async send(method: string, params: Parameters = {}, sessionId?: string): Promise<Record<string, unknown>> {
    this.#lastId += 1;
    const id = this.#lastId;
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    const { result = {}, error } = await new Promise<Reply>((resolve) => this.#waiting.set(id, resolve));
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    this.#folder.remove();
  }
}

export class Tab {
  readonly #browser: Chromium;
  readonly #targetId: string;
  readonly #sessionId: string;

  constructor(browser: Chromium, targetId: string, sessionId: string) {
    this.#browser = browser;
    this.#targetId = targetId;
    this.#sessionId = sessionId;
  }

  send(method: string, params: Parameters = {}): Promise<Record<string, unknown>> {
    return this.#browser.send(method, params, this.#sessionId);
  }

  /** What the expression is, awaited in the page. Throws what it throws there. */
  async evaluate<Value>(expression: string): Promise<Value> {
    const params = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = (await this.send("Runtime.evaluate", params)) as Evaluated<Value>; // as it says
    if (exceptionDetails)
      throw new Error(JSON.stringify(exceptionDetails.exception?.description ?? exceptionDetails));
    return result.value;
  }

  /** In front: every other tab is hidden. */
  async show(): Promise<void> {
    await this.#browser.send("Target.activateTarget", { targetId: this.#targetId });
  }

  /** For the page's HTTP and its `online`; sockets that are open stay open. */
  async setOffline(offline: boolean): Promise<void> {
    await this.send("Network.enable");
    const speed = { latency: 0, downloadThroughput: -1, uploadThroughput: -1 };
    await this.send("Network.emulateNetworkConditions", { offline, ...speed });
  }
}

interface Evaluated<Value> extends Record<string, unknown> {
  readonly result: { readonly value: Value };
  readonly exceptionDetails?: { readonly exception?: { readonly description?: string } };
}
