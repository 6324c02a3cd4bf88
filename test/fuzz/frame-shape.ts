// Which texts are `bad_frame`, said once more and without the server's schemas: not a JSON object, no known type, a field
// missing or of the wrong type. Nothing that is of the right type and not allowed is, and nothing inside a record.

type Shape = (value: unknown) => boolean;

const LIST_MAX = 10_000;

const text: Shape = (value) => typeof value === "string";
const number: Shape = (value) => typeof value === "number";

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Members that it does not name are not of the wrong type: they are unknown. */
function object(
  required: Readonly<Record<string, Shape>>,
  optional: Readonly<Record<string, Shape>> = {},
): Shape {
  const fits = (value: Readonly<Record<string, unknown>>, name: string, shape: Shape) =>
    Object.hasOwn(value, name) && shape(value[name]);
  return (value) =>
    isObject(value) &&
    Object.entries(required).every(([name, shape]) => fits(value, name, shape)) &&
    Object.entries(optional).every(
      ([name, shape]) => !Object.hasOwn(value, name) || fits(value, name, shape),
    );
}

/** Into a list that is too long, or empty where it must not be, nobody looks. */
function list(item: Shape, { max = LIST_MAX, min = 1 } = {}): Shape {
  return (value) => Array.isArray(value) && (value.length < min || value.length > max || value.every(item));
}

const array: Shape = Array.isArray;

/** A word, or an object with the one member that says what is meant. Several at once are of no type that is wrong. */
function place(names: readonly string[]): Shape {
  return (value) => {
    if (typeof value === "string") return true;
    if (!isObject(value)) return false;
    const [meant, ...others] = names.filter((name) => Object.hasOwn(value, name));
    if (meant === undefined) return Object.keys(value).length > 0; // an unknown member, unless there is none
    return others.length > 0 || typeof value[meant] === "number";
  };
}

const policy = place(["timestamp", "ago"]);
const policies = object({}, { missing: policy, outOfRange: policy });
const reset: Shape = (value) => {
  const isOne = typeof value === "string" || (isObject(value) && ("ago" in value || "timestamp" in value));
  return isOne ? policy(value) : policies(value);
};
const starts = list(object({ topic: text, partition: number, offset: number }, { topicId: number }));
const from: Shape = (value) =>
  Array.isArray(value) ? starts(value) : place(["offset", "timestamp", "ago"])(value);

const id: Shape = (value) => text(value) || number(value);
const named = { id, subscription: text };
const partitions = list(object({ topic: text, partition: number }));
const ackEntry = object(
  { topic: text, partition: number, generation: number, offset: number },
  { metadata: text },
);
const producer = object({ id: text, epoch: number, sequence: number });
const expectations = (members: Readonly<Record<string, Shape>>) =>
  list(object({ ...members, partition: number, logEndOffset: number }), { max: 1_024 });

const SHAPES: Readonly<Record<string, Shape>> = {
  auth: () => true, // not built yet
  subscribe: object(
    { topics: list(text, { max: 100 }) },
    {
      ...named,
      group: text,
      from,
      instanceId: text,
      memberId: text,
      reset,
      ack: text,
      window: object({}, { records: number, bytes: number }),
      sessionTimeoutMs: number,
      ackTimeoutMs: number,
    },
  ),
  ack: object({ offsets: list(ackEntry) }, named),
  release: object({ partitions }, named),
  seek: object({ topic: text, partition: number, to: place(["offset", "timestamp", "ago", "shift"]) }, named),
  pause: object({ partitions }, named),
  resume: object({ partitions }, named),
  produce: object({ topic: text, records: array }, { id, producer, expect: expectations({}) }),
  transact: object(
    { appends: list(object({ topic: text, records: array }), { min: 0 }) },
    {
      id,
      producer,
      commits: object({ group: text, offsets: list(ackEntry) }),
      expect: expectations({ topic: text }),
    },
  ),
  unsubscribe: object({}, named),
  pong: object({}, { id }),
};

export interface FrameFacts {
  readonly isJson: boolean;
  readonly isBadFrame: boolean;
  /** Undefined where there is no known one. */
  readonly type: string | undefined;
  /** Undefined where there is none that can be said again. */
  readonly id: string | number | undefined;
}

export function factsOf(frame: string): FrameFacts {
  let value: unknown;
  try {
    value = JSON.parse(frame);
  } catch {
    return { isJson: false, isBadFrame: true, type: undefined, id: undefined };
  }
  if (!isObject(value)) return { isJson: true, isBadFrame: true, type: undefined, id: undefined };
  const type = typeof value.type === "string" && Object.hasOwn(SHAPES, value.type) ? value.type : undefined;
  const isBadFrame = type === undefined || SHAPES[type]?.(value) !== true;
  return { isJson: true, isBadFrame, type, id: Object.hasOwn(value, "id") ? sayable(value.id) : undefined };
}

function sayable(value: unknown): string | number | undefined {
  if (typeof value === "number") return Number.isSafeInteger(value) && value >= 0 ? value + 0 : undefined;
  const isGood = typeof value === "string" && value.length <= 249 && value.isWellFormed();
  return isGood && !value.includes("\u0000") ? value : undefined;
}
