// A disk whose power can be cut at any moment, made of three loop devices:
//
//   stage     ext4 without a journal; it can be frozen, and then nothing below it changes any more
//   └ media   a file on the stage, with ext4 on it: what of the disk has been flushed
//     └ disk  a file on the media, with ext4 on it: the database is in here
//
// What a database writes and does not fsync stays in the page cache of the disk's file system, and with the power it is
// gone. What reaches the disk is in the page cache of the media: that is the disk's own cache, which loses power too. A
// flush, the end of every fsync, is an fsync of the disk's file on the media. None of the loop devices does direct I/O:
// that would pass by the caches which are to be lost.
//
// The cut freezes the stage. That is one moment for the whole of the media, in the middle of whatever fsync is under
// way: no fsync ends after it, so every answer that a client ever gets came from before. Whoever writes is killed
// next, and then the two files are copied. Where the disk and what the media has of it differ, the block was in the
// cache; a real disk may have written any of these, in any order, so the caller says which are kept.

import { closeSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";

const MIB = 1024 * 1024;
/** A layer has a journal and its own tables above what it carries. */
const DISK_BYTES = 96 * MIB;
const MEDIA_BYTES = 112 * MIB;
const STAGE_BYTES = 128 * MIB;
const BLOCK_BYTES = 4096;
const TOOLS = ["losetup", "mkfs.ext4", "mount", "umount", "fsfreeze", "sync", "fallocate", "cp"];
/** The fields of a block device's `stat` that count what was written, and what is under way. */
const STAT_WRITES = 4;
const STAT_IN_FLIGHT = 8;

/** Which blocks of the disk's cache have been written when the power goes. */
export type CacheFate = "all kept" | "all lost" | "some kept";

export interface DiskOptions {
  /** False: a file system that never tells its disk to flush, to see that this is found out. */
  readonly flushes?: boolean;
}

/** What stands between this machine and power cuts; undefined where nothing does. */
export function missingForPowerCuts(): string | undefined {
  if (process.platform !== "linux") return "Linux";
  if (userInfo().uid !== 0) return "root";
  const tools = TOOLS.filter((tool) => Bun.which(tool) === null);
  if (tools.length > 0) return tools.join(", ");
  const free = Bun.spawnSync(["losetup", "--find"]);
  return free.success ? undefined : `loop devices (losetup: ${free.stderr.toString().trim()})`;
}

export interface Mounted extends Disposable {
  readonly folder: string;
}

export interface CutDisk {
  /** Of the whole disk, to be mounted with `mountImage`. */
  readonly image: string;
  readonly blocksInCache: number;
}

/** `using` unmounts it and gives its loop devices back. */
export class PowerDisk implements Mounted {
  readonly folder: string;
  readonly #work: string;
  readonly #stack = new DisposableStack();
  readonly #stage: string;
  readonly #media: string;
  readonly #device: string;

  /** `work`: a folder of its own, for whoever made it to remove. */
  constructor(work: string, { flushes = true }: DiskOptions = {}) {
    this.#work = work;
    try {
      const stageImage = join(work, "stage.img");
      format(stageImage, STAGE_BYTES, ["-O", "^has_journal"]);
      this.#stage = this.#mount(stageImage, "stage").folder;
      const mediaImage = join(this.#stage, "media.img");
      format(mediaImage, MEDIA_BYTES);
      this.#media = this.#mount(mediaImage, "media").folder;
      const diskImage = join(this.#media, "disk.img");
      format(diskImage, DISK_BYTES);
      const disk = this.#mount(diskImage, "disk", flushes ? [] : ["nobarrier"]);
      this.folder = disk.folder;
      this.#device = disk.device;
      run("sync", "--file-system", this.folder);
      run("sync", "--file-system", this.#media);
    } catch (error) {
      this.#stack.dispose();
      throw error;
    }
  }

  /** `kill` sends SIGKILL to all that write; it is called when nothing can become durable any more. */
  cut({ kill, keeps }: { kill: () => void; keeps: () => boolean }): CutDisk {
    const media = join(this.#work, "media.cut");
    const live = join(this.#work, "disk.live");
    run("fsfreeze", "--freeze", this.#stage);
    try {
      kill();
      run("cp", join(this.#stage, "media.img"), media);
      copyAtRest(join(this.#media, "disk.img"), live, this.#device);
    } finally {
      run("fsfreeze", "--unfreeze", this.#stage);
    }
    const image = join(this.#work, "disk.cut");
    using flushed = mountImage(media, join(this.#work, "media-after"));
    run("cp", join(flushed.folder, "disk.img"), image);
    return { image, blocksInCache: keepBlocks({ image, live, keeps }) };
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }

  #mount(image: string, name: string, options: readonly string[] = []): Mounted & { device: string } {
    return this.#stack.use(mountImage(image, join(this.#work, name), options));
  }
}

/** As after the power is back: the file system replays its journal. */
export function mountImage(
  image: string,
  folder: string,
  options: readonly string[] = [],
): Mounted & { readonly device: string } {
  mkdirSync(folder, { recursive: true });
  using stack = new DisposableStack();
  const device = run("losetup", "--find", "--show", image);
  stack.defer(() => void run("losetup", "--detach", device));
  run("mount", "-t", "ext4", "-o", ["noatime", ...options].join(","), device, folder);
  stack.defer(() => void run("umount", folder));
  const held = stack.move();
  return { folder, device, [Symbol.dispose]: () => held.dispose() };
}

/** Blocks of 4 KiB on every layer, so that one of the disk's is one of the media's. */
function format(image: string, bytes: number, options: readonly string[] = []): void {
  run("fallocate", "--length", String(bytes), image);
  const small = ["-b", String(BLOCK_BYTES), "-N", "256", "-m", "0"];
  run(
    "mkfs.ext4",
    "-q",
    "-F",
    ...small,
    "-E",
    "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
    ...options,
    image,
  );
}

/** Again where something was written meanwhile: the processes are dead, but the kernel may still be writing. */
function copyAtRest(from: string, to: string, device: string): void {
  for (;;) {
    const before = writesOf(device);
    run("cp", from, to);
    if (writesOf(device) === before) return;
  }
}

function writesOf(device: string): string {
  const fields = readFileSync(`/sys/block/${device.replace("/dev/", "")}/stat`, "utf8")
    .trim()
    .split(/\s+/);
  return `${fields[STAT_WRITES]} ${fields[STAT_IN_FLIGHT]}`;
}

/** Writes those blocks of `live` into the image that the cache had and that are kept. Returns how many it had. */
function keepBlocks({ image, live, keeps }: { image: string; live: string; keeps: () => boolean }): number {
  const durable = readFileSync(image);
  const cached = readFileSync(live);
  const file = openSync(image, "r+");
  let count = 0;
  for (let at = 0; at < DISK_BYTES; at += BLOCK_BYTES) {
    if (durable.compare(cached, at, at + BLOCK_BYTES, at, at + BLOCK_BYTES) === 0) continue;
    count += 1;
    if (keeps()) writeSync(file, cached, at, BLOCK_BYTES, at);
  }
  closeSync(file);
  return count;
}

function run(...command: string[]): string {
  // Not of the terminal's process group: an interruption must not reach the umount that cleans up after it.
  const { success, stdout, stderr } = Bun.spawnSync(command, { detached: true });
  if (!success) throw new Error(`${command.join(" ")}: ${stderr.toString().trim()}`);
  return stdout.toString().trim();
}
