// The layout table as data, and the check that a file keeps to it: where files may lie, what they may import, which
// globals they may touch. Only syntax is looked at, so a rule is on names: a local called `Date` is refused as well.

import { posix } from "node:path";
import { type Node, type SourceFile, SyntaxKind } from "typescript/unstable/ast";
import {
  isBindingElement,
  isCallExpression,
  isElementAccessExpression,
  isExportDeclaration,
  isExternalModuleReference,
  isIdentifier,
  isImportDeclaration,
  isImportSpecifier,
  isImportTypeNode,
  isLiteralTypeNode,
  isMetaProperty,
  isModuleDeclaration,
  isNoSubstitutionTemplateLiteral,
  isPropertyAccessExpression,
  isQualifiedName,
  isStringLiteral,
} from "typescript/unstable/ast/is";

interface Area {
  /** Areas whose files may be imported; its own always may. */
  readonly imports: readonly string[];
  /** Packages with all their subpaths; one that ends in a colon is a whole scheme. */
  readonly packages?: readonly string[];
  /** May import migrations as text. */
  readonly readsMigrations?: boolean;
  /** What this area owns of the globals below. */
  readonly owns?: readonly GlobalKind[];
}

type GlobalKind = "time" | "chance" | "host" | "everything" | "bun" | "deno" | "workers";

// Every layer may import those below it.
const PROTOCOL = ["src/protocol", "src/protocol/schemas"];
const CORE = ["src/core", ...PROTOCOL];
const STORE = ["src/store", ...CORE];
const STREAM = ["src/stream", ...STORE];
const HTTP = ["src/http", ...STREAM];

const RUNTIMES: Area = {
  imports: HTTP,
  packages: ["hono", "@libsql/client", "valibot", "node:"],
  owns: ["time", "chance", "host", "everything"],
};

/** Its entry, the one file with a runtime's own modules and globals. */
function entryOf(own: GlobalKind, packages: readonly string[]): Area {
  return {
    imports: ["src/runtimes", ...RUNTIMES.imports],
    packages: [...(RUNTIMES.packages ?? []), ...packages],
    owns: [...(RUNTIMES.owns ?? []), own],
  };
}

/** By path without extension; the longest that fits counts, so a single file can have rules of its own. */
const AREAS: Readonly<Record<string, Area>> = {
  "src/protocol": { imports: [] },
  // Apart, so that clients get the plain types and constants without a package.
  "src/protocol/schemas": { imports: ["src/protocol"], packages: ["valibot"] },
  "src/core": { imports: PROTOCOL, packages: ["@hyperjump/json-schema"] },
  "src/store": { imports: CORE, packages: ["@libsql/client", "libsql", "valibot"], readsMigrations: true },
  "src/stream": { imports: STORE },
  "src/http": { imports: STREAM, packages: ["hono", "hono-openapi", "valibot", "@valibot/to-json-schema"] },
  "src/runtimes": RUNTIMES,
  "src/runtimes/bun": entryOf("bun", ["bun", "bun:"]),
  "src/runtimes/deno": entryOf("deno", []),
  "src/runtimes/workers": entryOf("workers", ["cloudflare:"]),
  "src/console": { imports: ["clients/typescript", ...PROTOCOL] },
  "src/cli": {
    imports: ["clients/typescript", "src/runtimes", ...PROTOCOL],
    packages: ["node:"],
    owns: ["host"],
  },
  "clients/typescript": { imports: ["clients/typescript/platform", "src/protocol"] },
  // What the client has of the runtime; the rest of it is handed this, or a test's own.
  "clients/typescript/platform": { imports: [], owns: ["time", "chance", "everything"] },
};

const INSTEAD: Readonly<Record<GlobalKind, string>> = {
  time: "take the clock or the timer as an argument",
  chance: "take the source of chance as an argument",
  host: "take what the runtime offers as an argument",
  everything: "name the global that is meant",
  bun: "take what the runtime offers as an argument",
  deno: "take what the runtime offers as an argument",
  workers: "take what the runtime offers as an argument",
};

/** Nobody but their owner names these at all, so that no alias can hide them. */
const BANNED: ReadonlyMap<string, GlobalKind> = new Map([
  ["Date", "time"],
  ["Temporal", "time"],
  ["performance", "time"],
  ["setTimeout", "time"],
  ["setInterval", "time"],
  ["setImmediate", "time"],
  ["Bun", "bun"],
  ["Deno", "deno"],
  ["WebSocketPair", "workers"],
  ["process", "host"],
  ["require", "host"],
  ["globalThis", "everything"],
  ["global", "everything"],
  ["self", "everything"],
]);

interface PartlyBanned {
  readonly kind: GlobalKind;
  readonly members: readonly string[];
  /** A local may have this name: only the members are banned. Otherwise nobody hands it on whole or takes it apart. */
  readonly isCommonName?: boolean;
}

const PARTLY_BANNED: ReadonlyMap<string, PartlyBanned> = new Map([
  ["Math", { kind: "chance", members: ["random"] }],
  ["crypto", { kind: "chance", members: ["randomUUID", "getRandomValues"] }],
  // In the browser globalThis, in the protocol the window of unacknowledged records.
  ["window", { kind: "everything", members: [...BANNED.keys(), "Math", "crypto"], isCommonName: true }],
]);

const BARREL_NAMES = ["utils", "common", "types", "index"];

/** What the file at `path` (from the repository's root, with `/`) does that the layout does not allow. */
export function findViolations(path: string, tree: SourceFile): readonly string[] {
  const misplaced = findMisplacement(path);
  if (misplaced !== undefined) return [`${path}: ${misplaced}`];

  const violations: string[] = [];
  const areaName = areaNameOf(path);
  const report = (position: number, what: string | undefined) => {
    const { line } = tree.getLineAndCharacterOfPosition(position);
    if (what !== undefined) violations.push(`${path}:${line + 1} ${what}`);
  };
  for (const reference of [...tree.referencedFiles, ...tree.typeReferenceDirectives]) {
    report(reference.pos, `refers to "${reference.fileName}" by a comment: import it`);
  }
  visit(tree, (node) => {
    const at = node.getStart(tree);
    for (const specifier of specifiersOf(node)) report(at, judgeImport(specifier, { path, areaName }));
    report(at, judgeGlobal(node, areaName));
  });
  return violations;
}

function visit(node: Node, see: (node: Node) => void): void {
  see(node);
  node.forEachChild((child) => visit(child, see));
}

function areaNameOf(path: string): string {
  const stem = path.replace(/\.tsx?$/, "");
  const fitting = Object.keys(AREAS).filter((name) => stem === name || stem.startsWith(`${name}/`));
  return fitting.reduce((longest, name) => (name.length > longest.length ? name : longest), "");
}

function areaOf(name: string): Area {
  return AREAS[name] ?? { imports: [] };
}

// ── where a file lies ────────────────────────────────────────────────────────────────────────────────────

function findMisplacement(path: string): string | undefined {
  if (areaNameOf(path) === "")
    return `lies in no folder of the layout; allowed are ${listed(Object.keys(AREAS))}`;
  if (!/\.tsx?$/.test(path)) return "is not TypeScript; source files end in .ts or .tsx";
  const barrel = path.split("/").find((part) => BARREL_NAMES.includes(part.replace(/\..*$/, "")));
  if (barrel !== undefined) return `"${barrel}" says nothing of what is inside; name it for its subject`;
  return undefined;
}

// ── imports ──────────────────────────────────────────────────────────────────────────────────────────────

/** The modules that this node itself names; `undefined` where the name is computed. */
function specifiersOf(node: Node): readonly (string | undefined)[] {
  if (isImportDeclaration(node)) return [textOf(node.moduleSpecifier)];
  if (isExportDeclaration(node))
    return node.moduleSpecifier === undefined ? [] : [textOf(node.moduleSpecifier)];
  if (isExternalModuleReference(node)) return [textOf(node.expression)];
  if (isImportTypeNode(node))
    return [isLiteralTypeNode(node.argument) ? textOf(node.argument.literal) : undefined];
  if (isModuleDeclaration(node) && isStringLiteral(node.name)) return [node.name.text];
  const isDynamicImport = isCallExpression(node) && node.expression.kind === SyntaxKind.ImportKeyword;
  return isDynamicImport ? [textOf(node.arguments[0])] : [];
}

function textOf(node: Node | undefined): string | undefined {
  if (node === undefined) return undefined;
  return isStringLiteral(node) || isNoSubstitutionTemplateLiteral(node) ? node.text : undefined;
}

interface Importer {
  readonly path: string;
  readonly areaName: string;
}

function judgeImport(specifier: string | undefined, { path, areaName }: Importer): string | undefined {
  if (specifier === undefined) return "imports a module by a computed name; only a literal can be checked";
  const isAllowed = /^\.\.?(\/|$)/.test(specifier)
    ? isFileAllowed(posix.join(posix.dirname(path), specifier), areaName)
    : isPackageAllowed(specifier, areaName);
  return isAllowed ? undefined : `imports "${specifier}"; ${allowedImports(areaName)}`;
}

function isFileAllowed(target: string, areaName: string): boolean {
  const { imports, readsMigrations = false } = areaOf(areaName);
  if (/^migrations\/[^/]+\.sql$/.test(target)) return readsMigrations;
  const isCode = /\.tsx?$/.test(target);
  const targetArea = areaNameOf(target);
  return isCode && targetArea !== "" && (targetArea === areaName || imports.includes(targetArea));
}

function isPackageAllowed(specifier: string, areaName: string): boolean {
  const { packages = [] } = areaOf(areaName);
  return packages.some((name) =>
    name.endsWith(":") ? specifier.startsWith(name) : specifier === name || specifier.startsWith(`${name}/`),
  );
}

function allowedImports(areaName: string): string {
  const { imports, packages = [], readsMigrations = false } = areaOf(areaName);
  const files = imports.length === 0 ? "no other folder" : listed(imports);
  const migrations = readsMigrations ? ", migrations/*.sql" : "";
  return `${areaName} may import ${files}${migrations} and ${packages.length === 0 ? "no package" : listed(packages)}`;
}

// ── globals ──────────────────────────────────────────────────────────────────────────────────────────────

function judgeGlobal(node: Node, areaName: string): string | undefined {
  const used = globalUsedBy(node);
  if (used === undefined || areaOf(areaName).owns?.includes(used.kind)) return undefined;
  const all = Object.keys(AREAS).filter((name) => areaOf(name).owns?.includes(used.kind));
  const owners = all.filter((name) => !all.some((around) => name.startsWith(`${around}/`)));
  return `uses ${used.name}, which belongs to ${listed(owners)}; ${INSTEAD[used.kind]}`;
}

interface GlobalUse {
  readonly name: string;
  readonly kind: GlobalKind;
}

function globalUsedBy(node: Node): GlobalUse | undefined {
  // The runtimes agree on no more of `import.meta` than its `url`, and a bundle changes that.
  if (isMetaProperty(node) && node.keywordToken === SyntaxKind.ImportKeyword)
    return { name: "import.meta", kind: "host" };
  if (!isIdentifier(node) || isMemberName(node)) return undefined;

  const name = node.text;
  const kind = BANNED.get(name);
  if (kind !== undefined) return { name, kind };
  const partly = PARTLY_BANNED.get(name);
  if (partly === undefined) return undefined;
  const member = memberOf(node);
  if (member !== undefined)
    return partly.members.includes(member) ? { name: `${name}.${member}`, kind: partly.kind } : undefined;
  return partly.isCommonName ? undefined : { name: `${name} as a whole`, kind: partly.kind };
}

/** `x` in `node.x` or `node["x"]`. */
function memberOf(node: Node): string | undefined {
  const { parent } = node;
  if (isPropertyAccessExpression(parent) && parent.expression === node) return parent.name.text;
  if (isElementAccessExpression(parent) && parent.expression === node)
    return textOf(parent.argumentExpression);
  return isQualifiedName(parent) && parent.left === node ? parent.right.text : undefined;
}

const MEMBERS: ReadonlySet<SyntaxKind> = new Set([
  SyntaxKind.PropertyAccessExpression,
  SyntaxKind.PropertyAssignment,
  SyntaxKind.PropertyDeclaration,
  SyntaxKind.PropertySignature,
  SyntaxKind.MethodDeclaration,
  SyntaxKind.MethodSignature,
  SyntaxKind.GetAccessor,
  SyntaxKind.SetAccessor,
  SyntaxKind.JsxAttribute,
]);

/** Behind a dot or in front of a colon stands the object's own member, whatever global is called alike. */
function isMemberName(node: Node): boolean {
  const { parent } = node;
  if (isQualifiedName(parent)) return parent.right === node;
  if (isBindingElement(parent) || isImportSpecifier(parent)) return parent.propertyName === node;
  return MEMBERS.has(parent.kind) && "name" in parent && parent.name === node;
}

function listed(names: readonly string[]): string {
  return names.join(", ");
}
