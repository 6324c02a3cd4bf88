// Browser-safe. One WebSocket for everything that a client does, which comes back by itself. Frames go out, answers come
// back to who asked, frames of a subscription to who opened it. Nothing that was sent is ever sent again from here: what
// to do when the connection was lost before the answer, only who asked can know.

import { CLOSE_CODES } from "../../src/protocol/codes.ts";
import type { DrainingFrame, ServerFrame, SubscribedFrame } from "../../src/protocol/frames.ts";
import { diagnose, findOldServer } from "./diagnosis.ts";
import { ConnectionClosedError, errorOfAnswer, TidemarkError } from "./errors.ts";
import { type LinkEffect, type LinkEvent, type LinkState, stepLink } from "./link-step.ts";
import type { Platform } from "./platform.ts";
import type { ServerUrl } from "./server-url.ts";

/** Asked for anew each time a connection is opened, so that it may be short-lived. */
export type TokenSource = string | (() => string | Promise<string>);

/** `waiting`: for the time to connect again. `draining`: the server stops, what is under way is finished. */
export type Status = "waiting" | "connecting" | "open" | "draining" | "closed";

/** Every answer but an `error`. */
export type Answer = Exclude<ServerFrame, { type: "error" }>;

/** Gets what the server says to a frame: the answer, its error, or that the connection was lost before either. */
export type AnswerListener = (answer: Answer | TidemarkError) => void;

export interface LinkListener {
  /** Connected, again: what was sent before on an older connection is answered no more. */
  readonly onUp?: () => void;
  readonly onDown?: () => void;
  readonly onStatus?: (status: Status) => void;
  /** Why a connection was not made, or was lost. It is tried again. */
  readonly onTrouble?: (error: TidemarkError) => void;
  /** For good. */
  readonly onEnd?: (error: TidemarkError) => void;
}

/** Frames of one subscription. */
export type FrameListener = (frame: ServerFrame) => void;

export interface LinkOptions {
  readonly url: ServerUrl;
  readonly token: TokenSource | undefined;
  readonly platform: Platform;
}

const PONG = '{"type":"pong"}';

export class Link {
  readonly #options: LinkOptions;
  readonly #listeners = new Set<LinkListener>();
  readonly #subscriptions = new Map<string, FrameListener>();
  readonly #asked = new Map<number, AnswerListener>();
  readonly #stopWaking: () => void;
  #state: LinkState = { kind: "waiting", failures: 0 };
  #socket: WebSocket | undefined;
  #stopTimer: () => void = () => {};
  #hasHeard = false;
  #lastId = 0;
  #status: Status = "waiting";
  #end: TidemarkError | undefined;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#stopWaking = options.platform.onWake(() => this.#step({ type: "woken" }));
  }

  /** Connects. */
  start(): void {
    this.#step({ type: "timer", hasHeard: false });
  }

  get status(): Status {
    return this.#status;
  }

  /** Whether a frame that is sent now may be answered; a server that drains takes nothing new. */
  get isUp(): boolean {
    return this.#state.kind === "up";
  }

  /** Why there will be no connection any more. */
  get end(): TidemarkError | undefined {
    return this.#end;
  }

  listen(listener: LinkListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Frames that name this subscription go to `listener`. */
  listenTo(subscription: string, listener: FrameListener): () => void {
    this.#subscriptions.set(subscription, listener);
    return () => {
      if (this.#subscriptions.get(subscription) === listener) this.#subscriptions.delete(subscription);
    };
  }

  /** Sends the frame that `write` makes with this id. `connection_lost` where there is no connection, or none any more. */
  ask(write: (id: number) => string, onAnswer: AnswerListener): void {
    if (!this.#canSend()) return onAnswer(this.#end ?? lostError());
    this.#lastId += 1;
    this.#asked.set(this.#lastId, onAnswer);
    this.#socket?.send(write(this.#lastId));
  }

  close(error: TidemarkError): void {
    if (this.#end) return;
    this.#state = { kind: "ended" };
    this.#drop(1000);
    this.#setDown();
    this.#finish(error);
  }

  #canSend(): boolean {
    const { kind } = this.#state;
    return kind === "up" || kind === "draining" || kind === "authenticating";
  }

  #step(event: LinkEvent): void {
    const { state, effects } = stepLink(this.#state, event, this.#options.platform.random());
    this.#state = state;
    for (const effect of effects) this.#perform(effect);
    this.#setStatus(statusOf(this.#state));
  }

  #perform(effect: LinkEffect): void {
    switch (effect.type) {
      case "open":
        return this.#open();
      case "drop":
        return this.#drop(undefined);
      case "authenticate":
        return void this.#authenticate();
      case "probe":
        return this.ask(
          (id) => `{"type":"pong","id":${id}}`,
          () => {},
        );
      case "startTimer":
        return this.#startTimer(effect.delayMs);
      case "announceUp":
        return this.#tell((listener) => listener.onUp?.());
      case "announceDown":
        return this.#setDown();
      case "end":
        return void this.#endBy(effect.closeCode);
    }
  }

  #startTimer(delayMs: number): void {
    this.#stopTimer();
    this.#hasHeard = false;
    this.#stopTimer = this.#options.platform.startTimer(delayMs, () =>
      this.#step({ type: "timer", hasHeard: this.#hasHeard }),
    );
  }

  #open(): void {
    const { platform, url, token } = this.#options;
    let hasOpened = false;
    let socket: WebSocket;
    try {
      socket = platform.openSocket(url.stream);
    } catch (cause) {
      return this.close(
        new TidemarkError("bad_url", `No WebSocket to ${url.stream} may be opened here: ${cause}`, { cause }),
      );
    }
    this.#socket = socket;
    socket.onopen = () => {
      hasOpened = true;
      this.#step({ type: "opened", hasToken: token !== undefined });
    };
    socket.onmessage = ({ data }) => this.#receive(String(data));
    socket.onerror = () => {}; // the close follows
    socket.onclose = ({ code, reason }) => {
      this.#socket = undefined;
      this.#closeReason = reason;
      if (!hasOpened) void this.#findOutWhy();
      else this.#trouble(`it closed with ${code}${reason ? `: ${reason}` : ""}`);
      this.#step({ type: "lost", closeCode: code, hasHeard: this.#hasHeard });
    };
  }

  #closeReason = "";

  /** A dead connection would take its time to say that it has closed: nobody waits for that. */
  #drop(code: number | undefined): void {
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    if (code === undefined) this.#trouble("it was silent for too long");
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close(code);
  }

  #receive(text: string): void {
    this.#hasHeard = true;
    const frame = parseFrame(text);
    if (!frame)
      return this.close(
        new TidemarkError(
          "not_a_server",
          `What answers at ${this.#options.url.stream} sends no frames of this protocol: check the URL`,
        ),
      );
    if (frame.type === "ping") return this.#socket?.send(PONG);
    if (frame.type === "draining") return this.#handleDraining(frame);
    if (frame.type === "subscribed") this.#step(heartbeatOf(frame));
    if ("subscription" in frame && frame.subscription !== undefined) {
      this.#subscriptions.get(frame.subscription)?.(frame);
    }
    if ("id" in frame && typeof frame.id === "number") this.#answer(frame.id, frame);
    else if (frame.type === "error" && frame.subscription === undefined)
      this.#tell((each) => each.onTrouble?.(errorOfAnswer(frame)));
  }

  #answer(id: number, frame: ServerFrame): void {
    const listener = this.#asked.get(id);
    this.#asked.delete(id);
    listener?.(frame.type === "error" ? errorOfAnswer(frame) : frame);
  }

  #handleDraining({ retryAfterMs }: DrainingFrame): void {
    this.#step({ type: "draining", retryAfterMs });
  }

  async #authenticate(): Promise<void> {
    const socket = this.#socket;
    try {
      const { token } = this.#options;
      const text = typeof token === "function" ? await token() : token;
      if (socket !== this.#socket) return; // lost while the token was fetched
      this.ask(
        (id) => JSON.stringify({ type: "auth", id, token: text }),
        (answer) => this.#handleAuthentication(answer),
      );
    } catch (cause) {
      if (socket !== this.#socket) return;
      this.#tell((each) =>
        each.onTrouble?.(new TidemarkError("unauthenticated", "The token could not be fetched", { cause })),
      );
      this.#drop(1000);
      this.#step({ type: "lost", closeCode: 1006, hasHeard: false });
    }
  }

  #handleAuthentication(answer: Answer | TidemarkError): void {
    if (!(answer instanceof TidemarkError)) return this.#step({ type: "authenticated" });
    if (!answer.retriable) this.close(answer);
  }

  /** First those who would go on sending are told, then those who wait for an answer. */
  #setDown(): void {
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    this.#tell((listener) => listener.onDown?.());
    for (const onAnswer of asked) onAnswer(lostError());
  }

  /** The browser says nothing of why a socket did not open: a request to the same server may. */
  async #findOutWhy(): Promise<void> {
    const error = await diagnose(this.#options);
    if (this.#end || this.isUp) return; // it is about a time that is over
    if (!error.retriable) return this.close(error);
    this.#tell((each) => each.onTrouble?.(error));
  }

  /** A frame that a server does not take may be one that it is too old for. */
  async #endBy(closeCode: number): Promise<void> {
    const error = new ConnectionClosedError(closeCode, this.#closeReason);
    const old = closeCode === CLOSE_CODES.badFrame ? await findOldServer(this.#options) : undefined;
    if (!this.#end) this.#finish(old ?? error);
  }

  #finish(error: TidemarkError): void {
    this.#end = error;
    this.#stopTimer();
    this.#stopWaking();
    this.#setStatus("closed");
    this.#tell((listener) => listener.onEnd?.(error));
    this.#listeners.clear();
  }

  #trouble(what: string): void {
    const error = new TidemarkError(
      "connection_lost",
      `The connection to ${this.#options.url.stream} was lost: ${what}`,
    );
    this.#tell((each) => each.onTrouble?.(error));
  }

  #setStatus(status: Status): void {
    if (status === this.#status) return;
    this.#status = status;
    this.#tell((listener) => listener.onStatus?.(status));
  }

  #tell(say: (listener: LinkListener) => void): void {
    for (const listener of [...this.#listeners]) say(listener);
  }
}

function parseFrame(text: string): ServerFrame | undefined {
  try {
    const frame = JSON.parse(text);
    return typeof frame === "object" && frame ? frame : undefined;
  } catch {
    return undefined; // not ours
  }
}

function heartbeatOf({ heartbeatMs }: SubscribedFrame): LinkEvent {
  return { type: "heartbeat", heartbeatMs };
}

function lostError(): TidemarkError {
  return new TidemarkError(
    "connection_lost",
    "The connection was lost before the answer came: it may or may not have happened",
  );
}

function statusOf({ kind }: LinkState): Status {
  switch (kind) {
    case "waiting":
      return "waiting";
    case "opening":
    case "authenticating":
      return "connecting";
    case "up":
      return "open";
    case "draining":
      return "draining";
    case "ended":
      return "closed";
  }
}
