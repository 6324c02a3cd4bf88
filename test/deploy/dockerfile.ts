// A Dockerfile as plain data, of the few instructions that ours is made of. One that is not known here is an error: a
// test that looked past it would hold for another image.

import {
  DockerfileParser,
  Env,
  type Instruction,
  JSONInstruction,
  ModifiableInstruction,
} from "dockerfile-ast";

export interface Stage {
  /** By its number where it has none. */
  readonly name: string;
  readonly base: string;
  readonly steps: readonly Step[];
}

export type Step =
  | {
      readonly kind: "copy";
      readonly from: string | null;
      readonly sources: string[];
      readonly target: string;
    }
  | { readonly kind: "run"; readonly line: string }
  | { readonly kind: "env"; readonly variables: Readonly<Record<string, string>> }
  /** Its words where it is in exec form, else null. */
  | { readonly kind: "cmd" | "healthcheck"; readonly command: readonly string[] | null }
  | { readonly kind: "workdir" | "user" | "volume" | "expose" | "stopsignal"; readonly value: string };

export function readStages(text: string): readonly Stage[] {
  const stages: { name: string; base: string; steps: Step[] }[] = [];
  for (const instruction of DockerfileParser.parse(text).getInstructions()) {
    const stage = stages.at(-1);
    if (instruction.getKeyword() === "FROM") stages.push(stageOf(instruction, stages.length));
    else if (stage === undefined) throw new Error(`${instruction.getKeyword()} before FROM`);
    else stage.steps.push(stepOf(instruction));
  }
  return stages;
}

/** The last of its kind: the one that counts. */
export function lastValue(stage: Stage, kind: Extract<Step, { value: string }>["kind"]): string | undefined {
  return stage.steps.flatMap((step) => (step.kind === kind ? [step.value] : [])).at(-1);
}

/** Null where there is none, or a shell would stand between it and its signals. */
export function lastCommand(stage: Stage, kind: "cmd" | "healthcheck"): readonly string[] | null {
  return stage.steps.flatMap((step) => (step.kind === kind ? [step.command] : [])).at(-1) ?? null;
}

function stageOf(from: Instruction, number: number) {
  const [base = "", as, name] = wordsOf(from);
  return { base, name: as === undefined ? String(number) : (name ?? ""), steps: [] };
}

function stepOf(instruction: Instruction): Step {
  const keyword = instruction.getKeyword();
  const content = instruction.getArgumentsContent() ?? "";
  switch (keyword) {
    case "COPY":
      return copyOf(instruction);
    case "RUN":
      return { kind: "run", line: content };
    case "ENV":
      return { kind: "env", variables: variablesOf(instruction) };
    case "CMD":
      return { kind: "cmd", command: execForm(content) };
    case "HEALTHCHECK":
      return { kind: "healthcheck", command: execForm(content.replace(/^CMD\s+/, "")) };
    case "WORKDIR":
    case "USER":
    case "VOLUME":
    case "EXPOSE":
    case "STOPSIGNAL":
      return { kind: KINDS[keyword], value: content };
    default:
      throw new Error(`the tests of the Dockerfile know nothing of ${keyword}`);
  }
}

function copyOf(instruction: Instruction): Step {
  const words = wordsOf(instruction);
  const target = words.pop() ?? "";
  return { kind: "copy", from: flagOf(instruction, "from"), sources: words, target };
}

const KINDS = {
  WORKDIR: "workdir",
  USER: "user",
  VOLUME: "volume",
  EXPOSE: "expose",
  STOPSIGNAL: "stopsignal",
} as const;

function wordsOf(instruction: Instruction): string[] {
  const isExec = instruction instanceof JSONInstruction && instruction.getOpeningBracket() !== null;
  if (isExec) throw new Error(`write ${instruction.getKeyword()} without brackets`);
  return instruction.getArguments().map((argument) => argument.getValue());
}

function flagOf(instruction: Instruction, name: string): string | null {
  const flags = instruction instanceof ModifiableInstruction ? instruction.getFlags() : [];
  const other = flags.find((flag) => flag.getName() !== name);
  if (other) throw new Error(`the tests of the Dockerfile know nothing of ${other}`);
  return flags.at(0)?.getValue() ?? null;
}

function variablesOf(instruction: Instruction): Record<string, string> {
  const properties = instruction instanceof Env ? instruction.getProperties() : [];
  return Object.fromEntries(properties.map((property) => [property.getName(), property.getValue() ?? ""]));
}

function execForm(content: string): readonly string[] | null {
  return content.startsWith("[") ? JSON.parse(content) : null;
}
