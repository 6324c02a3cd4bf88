// The README's tables stand between markers, so that a command can write them and a test compare them.

import { join } from "node:path";

const README = join(import.meta.dir, "../README.md");

export async function writeReadme(marker: string, text: string): Promise<void> {
  const readme = await Bun.file(README).text();
  const marked = (inside: string) => `<!-- ${marker} -->${inside}<!-- /${marker} -->`;
  await Bun.write(
    README,
    readme.replace(marked(between(readme, marker)), () => marked(`\n${text}\n`)),
  );
}

export async function readReadme(marker: string): Promise<string> {
  return between(await Bun.file(README).text(), marker).trim();
}

function between(readme: string, marker: string): string {
  const [, found] = readme.match(new RegExp(`<!-- ${marker} -->(.*?)<!-- /${marker} -->`, "s")) ?? [];
  if (found === undefined) throw new Error(`the README has no markers <!-- ${marker} -->`);
  return found;
}
