// Browser-safe. The frames of a producer that are not answered yet, and what becomes of them. Pure; producer.ts does what
// it says.
//
// The server writes sequence n only after n − 1, and what it refuses consumes none. So when one frame comes back, those
// behind it come back too, as gaps: nothing is sent until all that is under way is answered, and then the oldest frame
// that is left decides.
//
// - It may be tried again: it and all behind it go again as they were, under the same sequences. What had been written
//   is found by its sequence and answered.
// - It was refused: it goes, and what stood behind it is gathered anew and takes the sequences from there on. A refusal
//   also says that no earlier copy of it, nor of what stood behind it, has been written: a repeat would have been found
//   first. A copy that is still on its way somewhere might be. Where there may be one, what follows goes under a new
//   epoch: with the first of it the server refuses whatever comes of the old one.
// - The server has failed at it (`internal`): nobody knows, and it goes, with all that is in doubt behind it.
// - It is a gap, with nothing refused before it: the server does not know the id any more, and so finds no repeat. What
//   is in doubt goes, the rest goes again under a new epoch.
//
// A frame is *doubtful* when a copy of it may have been written without an answer.

import { errorOf, type Facts, TidemarkError } from "./errors.ts";
import type {
  LaneEffect,
  LaneEvent,
  LaneFrame,
  LaneItem,
  LaneRules,
  LaneState,
  LaneStep,
  Written,
} from "./producer-lane.ts";
import { relativeError } from "./producer-records.ts";

/** After these a frame may have been written. */
const DOUBTFUL: readonly string[] = ["connection_lost", "outcome_unknown", "internal"];

/** Final, but what the server was asked to do has nothing to do with it. */
const NO_REFUSALS: readonly string[] = ["sequence_gap", "internal"];
/** Not of a record, whatever went together with it. */
const OF_THE_WHOLE: readonly string[] = ["unknown_topic", "unauthenticated", "forbidden"];

/**
 * Whether another frame may follow those that are under way. Counted from the oldest: answers come in any order, and the
 * server keeps those of the last sequences only.
 */
export function hasRoom(
  { frames, isPaused, end, nextSequence }: LaneState<LaneItem>,
  inFlight: number,
): boolean {
  const span = nextSequence - (frames[0]?.sequence ?? nextSequence);
  return !end && !isPaused && span < inFlight && frames.every(({ isAsked }) => isAsked);
}

export function stepLane<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  event: LaneEvent<T, W>,
  rules: LaneRules,
): LaneStep<T, W> {
  switch (event.type) {
    case "taken":
      return take(state, event.items);
    case "answered":
      return handleAnswer(state, event, rules);
    case "up":
      return sendAgain({ ...state, isPaused: false });
    case "timer":
      if (!state.isPaused) return stay(state);
      return rules.isUp ? sendAgain({ ...state, isPaused: false }) : stay({ ...state, isPaused: false });
    case "expired":
      return expire(state, event.tick, rules);
  }
}

function take<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  items: readonly T[],
): LaneStep<T, W> {
  const { epoch, nextSequence: sequence } = state;
  const key = state.lastKey + 1;
  const asked = { isAsked: true, isDoubtful: false, trouble: undefined, attempts: 1 };
  const frame: LaneFrame<T> = { key, epoch, sequence, items, ...asked };
  return {
    state: { ...state, frames: [...state.frames, frame], lastKey: key, nextSequence: sequence + 1 },
    effects: [{ type: "ask", frame }],
  };
}

function handleAnswer<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  { key, answer }: { readonly key: number; readonly answer: W | TidemarkError },
  rules: LaneRules,
): LaneStep<T, W> {
  const frame = state.frames.find((each) => each.key === key);
  if (!frame) return stay(state); // given up meanwhile
  if (answer instanceof TidemarkError) return handleTrouble(state, frame, answer, rules);
  if (answer.isDuplicate && frame.attempts === 1)
    return handleTrouble(state, frame, foreignError(frame), rules);
  const left = { ...state, failures: 0, frames: without(state.frames, frame) };
  return after([{ type: "resolve", items: frame.items, answer }], settle(left, rules));
}

function handleTrouble<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  frame: LaneFrame<T>,
  trouble: TidemarkError,
  rules: LaneRules,
): LaneStep<T, W> {
  const isDoubtful = frame.isDoubtful || DOUBTFUL.includes(trouble.code);
  const troubled = { ...frame, isAsked: false, isDoubtful, trouble };
  if (isDoubtful && !rules.isIdempotent) {
    const left = { ...state, frames: without(state.frames, frame) };
    return after([reject(troubled, trouble)], settle(left, rules));
  }
  const frames = state.frames.map((each) => (each === frame ? troubled : each));
  return settle({ ...state, frames }, rules);
}

/** When nothing is under way any more, the oldest frame decides. */
function settle<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  rules: LaneRules,
): LaneStep<T, W> {
  const [oldest] = state.frames;
  if (!oldest?.trouble || state.frames.some(({ isAsked }) => isAsked)) return stay(state);
  const { trouble } = oldest;
  if (isEnd(trouble)) return end(state, trouble);
  if (trouble.code === "internal") return giveUp(state, [oldest], { rules });
  if (trouble.code === "sequence_gap") return renewUnknown(state, oldest, rules);
  if (!trouble.retriable) return dropRefused(state, rules);
  if (trouble.code === "connection_lost") return stay(state);
  return {
    state: { ...state, isPaused: true, failures: state.failures + 1 },
    effects: [{ type: "pause", failures: state.failures }],
  };
}

/** Nobody can go on under this id and epoch. */
function isEnd({ code, facts }: TidemarkError): boolean {
  return code === "fenced_producer" || facts.isForeign === true;
}

function isRefused({ trouble }: LaneFrame<LaneItem>): boolean {
  return (
    trouble !== undefined && !trouble.retriable && !NO_REFUSALS.includes(trouble.code) && !isEnd(trouble)
  );
}

function renewUnknown<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  { sequence, trouble }: LaneFrame<T>,
  rules: LaneRules,
): LaneStep<T, W> {
  // At 0 the server knows more of this epoch than we do: somebody else writes in it.
  if (trouble && (rules.ownId !== undefined || sequence === 0)) return end(state, trouble);
  return giveUp(state, [], { rules, gap: trouble });
}

function dropRefused<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  rules: LaneRules,
): LaneStep<T, W> {
  const kept = [...state.frames];
  const effects: LaneEffect<T, W>[] = [];
  const putBack: T[] = [];
  const alone: T[] = [];
  for (let frame = kept[0]; frame && isRefused(frame); frame = kept[0]) {
    const { refused, error, rest } = divide(frame);
    if (refused.length > 0) effects.push(reject({ ...frame, items: refused }, error));
    else alone.push(...rest);
    putBack.push(...rest);
    kept.shift();
  }
  const from = state.frames[0]?.sequence ?? 0;
  const mustRenew = state.frames.some(({ isDoubtful }) => isDoubtful);
  return gatherAnew({ ...state, frames: kept }, { from, mustRenew, effects, putBack, alone }, rules);
}

interface Divided<T extends LaneItem> {
  readonly refused: readonly T[];
  readonly error: TidemarkError;
  /** What was refused only because it went together with something else. */
  readonly rest: readonly T[];
}

function divide<T extends LaneItem>({ items, trouble = expiredError() }: LaneFrame<T>): Divided<T> {
  const { record } = trouble.facts;
  if (items.length === 1 || OF_THE_WHOLE.includes(trouble.code))
    return { refused: items, error: trouble, rest: [] };
  let start = 0;
  for (const item of items) {
    const end = start + item.count;
    if (typeof record === "number" && record >= start && record < end) {
      const rest = items.filter((each) => each !== item);
      return { refused: [item], error: relativeError(trouble, record, start), rest };
    }
    start = end;
  }
  return { refused: [], error: trouble, rest: items };
}

interface Regathering<T extends LaneItem, W extends Written> {
  /** The sequence that is the next one, where the epoch stays. */
  readonly from?: number;
  readonly mustRenew: boolean;
  /** Come first. */
  readonly effects?: readonly LaneEffect<T, W>[];
  /** Comes before what the frames hold. */
  readonly putBack?: readonly T[];
  readonly alone?: readonly T[];
}

/** All frames that are left are none any more: what they hold waits again, in front. */
function gatherAnew<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  { from = 0, mustRenew, effects = [], putBack = [], alone = [] }: Regathering<T, W>,
  { ownId, isIdempotent }: LaneRules,
): LaneStep<T, W> {
  const isRenewed = mustRenew && isIdempotent;
  const items = [...putBack, ...state.frames.flatMap((frame) => frame.items)];
  const back: LaneEffect<T, W> = { type: "putBack", items, alone };
  const left = { ...state, frames: [], isPaused: false };
  if (isRenewed && ownId !== undefined)
    return after([...effects, back], end(left, epochError("what was sent before may still be written")));
  const next = isRenewed ? { epoch: state.epoch + 1, nextSequence: 0 } : { nextSequence: from };
  return { state: { ...left, ...next }, effects: [...effects, back] };
}

function expire<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  tick: number,
  rules: LaneRules,
): LaneStep<T, W> {
  const old = state.frames.filter(({ items }) => (items[0]?.tick ?? 0) <= tick);
  return old.length === 0 ? stay(state) : giveUp(state, old, { rules });
}

/** With `lost` goes all that is in doubt: only behind what is lost now would the server have found it as a repeat. */
function giveUp<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  lost: readonly LaneFrame<T>[],
  { rules, gap }: { readonly rules: LaneRules; readonly gap?: TidemarkError | undefined },
): LaneStep<T, W> {
  const isGone = (frame: LaneFrame<T>) => lost.includes(frame) || (rules.isIdempotent && isInDoubt(frame));
  const gone = state.frames.filter(isGone);
  const effects = gone.map((frame) =>
    reject<T, W>({ ...frame, isDoubtful: isInDoubt(frame) }, gap ?? reasonOf(frame)),
  );
  const left = { ...state, frames: state.frames.filter((frame) => !isGone(frame)) };
  if (!rules.isIdempotent) return after(effects, settle(left, rules));
  const from = state.frames[0]?.sequence ?? 0;
  return gatherAnew(left, { from, mustRenew: gap !== undefined || gone.some(isInDoubt), effects }, rules);
}

/** A gap is the trouble of the one before it. */
function reasonOf({ trouble }: LaneFrame<LaneItem>): TidemarkError {
  return trouble && trouble.code !== "sequence_gap" ? trouble : expiredError();
}

function isInDoubt({ isAsked, isDoubtful }: LaneFrame<LaneItem>): boolean {
  return isAsked || isDoubtful;
}

function end<T extends LaneItem, W extends Written>(
  state: LaneState<T>,
  error: TidemarkError,
): LaneStep<T, W> {
  const rejected = state.frames.map((frame) => reject<T, W>(frame, error));
  return {
    state: { ...state, frames: [], end: error },
    effects: [...rejected, { type: "end", error }],
  };
}

function sendAgain<T extends LaneItem, W extends Written>(state: LaneState<T>): LaneStep<T, W> {
  const frames = state.frames.map((frame) =>
    frame.isAsked ? frame : { ...frame, isAsked: true, attempts: frame.attempts + 1, trouble: undefined },
  );
  const again = frames.filter((frame, index) => frame !== state.frames[index]);
  return { state: { ...state, frames }, effects: again.map((frame) => ({ type: "ask", frame })) };
}

function reject<T extends LaneItem, W extends Written>(
  { items, isDoubtful }: LaneFrame<T>,
  cause: TidemarkError = expiredError(),
): LaneEffect<T, W> {
  if (!isDoubtful || cause.code === "outcome_unknown") return { type: "reject", items, error: cause };
  const why = `It may or may not have been written: ${cause.message}`;
  return { type: "reject", items, error: errorOf("outcome_unknown", why, { facts: cause.facts, cause }) };
}

/** Of what was never sent, or of which nothing was done. */
export function expiredError(): TidemarkError {
  return errorOf("unavailable", "Not written: it was tried until deliveryTimeoutMs had passed");
}

/** Its first answer says that it was written before: not by us. */
function foreignError({ sequence }: LaneFrame<LaneItem>): TidemarkError {
  return epochError(`another run has written sequence ${sequence} of it`, { isForeign: true });
}

function epochError(why: string, facts: Facts = {}): TidemarkError {
  const message = `Cannot go on with this producer id and epoch: ${why}. POST /v1/producers/:id gives a new epoch`;
  return errorOf("conflict", message, { facts });
}

function without<T>(list: readonly T[], item: T): readonly T[] {
  return list.filter((each) => each !== item);
}

function after<T extends LaneItem, W extends Written>(
  effects: readonly LaneEffect<T, W>[],
  step: LaneStep<T, W>,
): LaneStep<T, W> {
  return { state: step.state, effects: [...effects, ...step.effects] };
}

function stay<T extends LaneItem, W extends Written>(state: LaneState<T>): LaneStep<T, W> {
  return { state, effects: [] };
}
