// Hard links of a layer to files of layers below, which tar(1) cannot make where it extracts the layer alone: they are
// copied from the layers below, as overlayfs does when a container runtime makes them.
import { spawn } from 'node:child_process';
import { link, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { UsageError } from '../../base/errors.ts';
import { MNT_DETACH, mount, MS_RDONLY, unmount } from '../../native/mount.ts';

/** One link, both names as they stand in the layer. */
export interface LowerLink {
  link: string;
  target: string;
}

const MESSAGE = /^tar: (.*): Cannot hard link to '?(.*?)'?: No such file or directory$/;

/** Text of `--quoting-style=escape`; undefined when the bytes are no UTF-8, which paths of Node cannot name. */
function unquoted(text: string): string | undefined {
  const letters: Record<string, number> = { a: 7, b: 8, f: 12, n: 10, r: 13, t: 9, v: 11 };
  const bytes: number[] = [];
  for (let at = 0; at < text.length; at++) {
    if (text[at] !== '\\') {
      bytes.push(...Buffer.from(text[at] ?? ''));
      continue;
    }
    const octal = /^[0-7]{3}/.exec(text.slice(at + 1))?.[0];
    const next = text[at + 1] ?? '';
    bytes.push(octal === undefined ? (letters[next] ?? next.charCodeAt(0)) : Number.parseInt(octal, 8));
    at += octal?.length ?? 1;
  }
  const name = Buffer.from(bytes).toString('utf8');
  return Buffer.from(name).equals(Buffer.from(bytes)) ? name : undefined;
}

/** The link that a message of tar is about, with LC_ALL=C and `--quoting-style=escape`. */
export function failedLink(line: string): LowerLink | undefined {
  const [, link = '', target = ''] = MESSAGE.exec(line) ?? [];
  const names = { link: unquoted(link), target: unquoted(target) };
  if (names.link === undefined || names.target === undefined || names.link === '') return undefined;
  return { link: names.link, target: names.target };
}

function mountOver(trees: string, lower: string, at: string): void {
  const before = process.cwd();
  process.chdir(trees);
  try {
    mount('overlay', at, 'overlay', MS_RDONLY, `lowerdir=${lower}`);
  } finally {
    process.chdir(before);
  }
}

/** @returns false: there is no such file */
async function hardLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function copy(from: string, to: string): Promise<void> {
  const child = spawn('cp', ['-a', '--', from, to], { stdio: ['ignore', 'ignore', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (piece: Buffer) => (errors = (errors + piece.toString()).slice(0, 2000)));
  const status = await new Promise<number | null>((done, fail) => {
    child.on('error', fail);
    child.on('close', done);
  });
  if (status !== 0)
    throw new UsageError(`a hard link to a file of a lower layer cannot be followed: ${errors.trim()}`, {
      exitCode: 1,
    });
}

/**
 * Copy the targets of links into the tree of their layer.
 *
 * @param trees directory with the trees of all layers, named by their numbers, and one called `empty`
 * @param at    number of the layer
 * @param view  an empty directory
 */
export async function copyLowerLinks(
  links: readonly LowerLink[],
  trees: string,
  at: number,
  view: string,
): Promise<void> {
  const [first] = links;
  if (first === undefined) return;
  if (at === 0)
    throw new UsageError(
      `hard link ${first.link} of the lowest layer leads to ${first.target}, which is not there`,
      { exitCode: 1 },
    );
  const lower = [...Array.from({ length: at }, (_, below) => String(below)).toReversed(), 'empty'];
  mountOver(trees, lower.join(':'), view);
  try {
    for (const { link: name, target } of links) {
      const to = join(trees, String(at), name);
      await mkdir(dirname(to), { recursive: true });
      // a link before may have brought the file into this layer
      const own = await hardLink(join(trees, String(at), target), to);
      if (!own) await copy(join(view, target), to);
    }
  } finally {
    unmount(view, MNT_DETACH);
  }
}
