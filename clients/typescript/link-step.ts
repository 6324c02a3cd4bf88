// Browser-safe. The life of a connection, decided: connect, authenticate, notice that it is dead, come back. Pure; link.ts
// does what it says.
//
//   waiting ── timer, wake ──> opening ── opened ──> authenticating ── ok ──> up ── draining ──> draining
//      ^                          │                        │                   │                     │
//      └──────────────────────────┴──── lost, silent ──────┴───────────────────┴─────────────────────┘
//   and from anywhere to `ended`, by a close code that means so, or because the user wants it.

import { CLOSE_CODES } from "../../src/protocol/codes.ts";

/** The first pause before connecting again is at most this; it doubles with every failure. */
export const BACKOFF_MIN_MS = 200;
export const BACKOFF_MAX_MS = 20_000;
/** A socket that has not opened, or a token not been answered, in this time is given up. */
export const OPEN_TIMEOUT_MS = 10_000;
/** A connection on which nothing was heard for that long is asked whether it is alive. Servers speak more often. */
export const SILENCE_MS = 20_000;
/** A connection that does not answer in this time is dead. */
export const PROBE_TIMEOUT_MS = 5_000;

export type LinkState =
  | { readonly kind: "waiting"; readonly failures: number }
  | { readonly kind: "opening"; readonly failures: number }
  | { readonly kind: "authenticating"; readonly failures: number }
  | {
      readonly kind: "up";
      readonly failures: number;
      readonly isProbing: boolean;
      readonly silenceMs: number;
    }
  | { readonly kind: "draining"; readonly failures: number; readonly retryAfterMs: number }
  | { readonly kind: "ended" };

export type LinkEvent =
  /** The server takes tokens and there is one: then `authenticated` follows. */
  | { readonly type: "opened"; readonly hasToken: boolean }
  | { readonly type: "authenticated" }
  /** The server said how often it pings: silence of longer than that is suspicious. */
  | { readonly type: "heartbeat"; readonly heartbeatMs: number }
  | { readonly type: "draining"; readonly retryAfterMs: number }
  /** The timer ran out; whether anything was heard since it was started. */
  | { readonly type: "timer"; readonly hasHeard: boolean }
  /** The machine is online again, or the page seen. */
  | { readonly type: "woken" }
  | { readonly type: "lost"; readonly closeCode: number; readonly hasHeard: boolean };

export type LinkEffect =
  | { readonly type: "open" }
  | { readonly type: "drop" }
  | { readonly type: "authenticate" }
  | { readonly type: "probe" }
  | { readonly type: "startTimer"; readonly delayMs: number }
  | { readonly type: "announceUp" }
  | { readonly type: "announceDown" }
  | { readonly type: "end"; readonly closeCode: number };

export interface LinkStep {
  readonly state: LinkState;
  readonly effects: readonly LinkEffect[];
}

/** `chance` is at least 0 and below 1: how much of the longest pause is waited. */
export function stepLink(state: LinkState, event: LinkEvent, chance: number): LinkStep {
  switch (event.type) {
    case "opened":
      if (state.kind !== "opening") return stay(state);
      return event.hasToken
        ? {
            state: { ...state, kind: "authenticating" },
            effects: [{ type: "authenticate" }, timer(OPEN_TIMEOUT_MS)],
          }
        : goUp(state.failures);
    case "authenticated":
      return state.kind === "authenticating" ? goUp(state.failures) : stay(state);
    case "heartbeat":
      if (state.kind !== "up") return stay(state);
      return {
        state: { ...state, silenceMs: event.heartbeatMs * 1.5 },
        effects: [timer(event.heartbeatMs * 1.5)],
      };
    case "draining":
      if (state.kind !== "up") return stay(state);
      return {
        state: { kind: "draining", failures: 0, retryAfterMs: event.retryAfterMs },
        effects: [timer(OPEN_TIMEOUT_MS)],
      };
    case "timer":
      return handleTimer(state, event.hasHeard, chance);
    case "woken":
      return handleWake(state);
    case "lost":
      return handleLoss(state, event, chance);
  }
}

export function isFinal(closeCode: number): boolean {
  return (
    closeCode === CLOSE_CODES.normal ||
    closeCode === CLOSE_CODES.frameTooLarge ||
    (closeCode >= CLOSE_CODES.badFrame && closeCode <= 4999)
  );
}

function goUp(failures: number): LinkStep {
  return {
    state: { kind: "up", failures, isProbing: false, silenceMs: SILENCE_MS },
    effects: [timer(SILENCE_MS), { type: "announceUp" }],
  };
}

function handleTimer(state: LinkState, hasHeard: boolean, chance: number): LinkStep {
  switch (state.kind) {
    case "waiting":
      return open(state);
    case "up":
      if (hasHeard)
        return { state: { ...state, isProbing: false, failures: 0 }, effects: [timer(state.silenceMs)] };
      return state.isProbing ? giveUp(state, chance) : probe(state);
    case "opening":
    case "authenticating":
    case "draining":
      return giveUp(state, chance);
    case "ended":
      return stay(state);
  }
}

/** What was asleep may hold a socket that died meanwhile, and need not wait for its pause to pass. */
function handleWake(state: LinkState): LinkStep {
  if (state.kind === "waiting") return open(state);
  return state.kind === "up" && !state.isProbing ? probe(state) : stay(state);
}

function handleLoss(
  state: LinkState,
  { closeCode, hasHeard }: { closeCode: number; hasHeard: boolean },
  chance: number,
): LinkStep {
  if (state.kind === "ended" || state.kind === "waiting") return stay(state);
  if (isFinal(closeCode))
    return { state: { kind: "ended" }, effects: [{ type: "announceDown" }, { type: "end", closeCode }] };
  const failures = hasHeard && closeCode !== CLOSE_CODES.slowDown ? 0 : state.failures;
  const pauseMs = state.kind === "draining" ? state.retryAfterMs * (1 + chance) : backoffMs(failures, chance);
  return {
    state: { kind: "waiting", failures: failures + 1 },
    effects: [{ type: "announceDown" }, timer(pauseMs)],
  };
}

/** Full jitter: many clients that lose one server do not come back together. */
export function backoffMs(failures: number, chance: number): number {
  return chance * Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** failures);
}

function giveUp(state: LinkState, chance: number): LinkStep {
  const { state: next, effects } = handleLoss(state, { closeCode: 1006, hasHeard: false }, chance);
  return { state: next, effects: [{ type: "drop" }, ...effects] };
}

function open({ failures }: { failures: number }): LinkStep {
  return { state: { kind: "opening", failures }, effects: [{ type: "open" }, timer(OPEN_TIMEOUT_MS)] };
}

function probe(state: LinkState & { kind: "up" }): LinkStep {
  return { state: { ...state, isProbing: true }, effects: [{ type: "probe" }, timer(PROBE_TIMEOUT_MS)] };
}

function timer(delayMs: number): LinkEffect {
  return { type: "startTimer", delayMs };
}

function stay(state: LinkState): LinkStep {
  return { state, effects: [] };
}
