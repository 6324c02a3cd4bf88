// JSON as it is written: members in their order, as often as they come, and every scalar by its text. What JSON.stringify
// cannot say (a member twice, 1e400, −0, a lone surrogate as it is) can be said with it.

export type JsonNode = ObjectNode | ArrayNode | ScalarNode;

export interface ObjectNode {
  readonly kind: "object";
  readonly members: Member[];
}

export interface Member {
  name: string;
  node: JsonNode;
}

export interface ArrayNode {
  readonly kind: "array";
  readonly items: JsonNode[];
}

export interface ScalarNode {
  readonly kind: "scalar";
  readonly text: string;
}

/** Where a node hangs: what can be put in its place, taken away or doubled. */
export type Slot =
  | { readonly at: "member"; readonly parent: ObjectNode; readonly index: number }
  | { readonly at: "item"; readonly parent: ArrayNode; readonly index: number };

export function treeOf(value: unknown): JsonNode {
  if (Array.isArray(value)) return { kind: "array", items: value.map(treeOf) };
  if (typeof value !== "object" || value === null) return scalar(value);
  const members = Object.entries(value).map(([name, member]) => ({ name, node: treeOf(member) }));
  return { kind: "object", members };
}

/** A string, number, boolean or null. */
export function scalar(value: unknown): ScalarNode {
  return { kind: "scalar", text: JSON.stringify(value) };
}

export function textOf(node: JsonNode): string {
  switch (node.kind) {
    case "scalar":
      return node.text;
    case "array":
      return `[${node.items.map(textOf).join(",")}]`;
    case "object":
      return `{${node.members.map(({ name, node: member }) => `${JSON.stringify(name)}:${textOf(member)}`).join(",")}}`;
  }
}

/** All below the root. */
export function slotsOf(root: JsonNode): readonly Slot[] {
  if (root.kind === "scalar") return [];
  const own: readonly Slot[] =
    root.kind === "object"
      ? root.members.map((_, index) => ({ at: "member", parent: root, index }))
      : root.items.map((_, index) => ({ at: "item", parent: root, index }));
  return own.flatMap((slot) => [slot, ...slotsOf(nodeAt(slot))]);
}

export function nodeAt(slot: Slot): JsonNode {
  const node = slot.at === "member" ? slot.parent.members[slot.index]?.node : slot.parent.items[slot.index];
  if (!node) throw new RangeError("nothing hangs here");
  return node;
}

export function replaceAt(slot: Slot, node: JsonNode): void {
  if (slot.at === "item") {
    slot.parent.items[slot.index] = node;
    return;
  }
  const member = slot.parent.members[slot.index];
  if (member) member.node = node;
}

export function removeAt({ at, parent, index }: Slot): void {
  if (at === "item") parent.items.splice(index, 1);
  else parent.members.splice(index, 1);
}
