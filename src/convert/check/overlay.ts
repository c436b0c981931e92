// An OCI image as a tree: layers extracted by tar(1), whiteouts put into overlayfs's form, mounted over each other. Another
// reader than the one that builds nydus images, so that a mistake of one shows.
// Source: OCI image-spec 1.1, layer.md "Whiteouts"; Linux Documentation/filesystems/overlayfs.rst.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { S_IFCHR } from '../../format/flags.ts';
import { makeNode } from '../../native/make-node.ts';
import { MNT_DETACH, mount, MS_RDONLY, unmount } from '../../native/mount.ts';
import { setXattr } from '../../native/xattr.ts';
import { eachOf } from '../copy/copy.ts';
import { copyLowerLinks, failedLink, type LowerLink } from './lower-links.ts';
import { decoded } from '../mount/decoded.ts';
import type { Descriptor } from '../oci.ts';
import type { ImageSource } from '../source.ts';

/** Layers extracted at a time, as upstream has it. */
const LAYERS_AT_ONCE = 5;
/** Lower directories that overlayfs takes. Source: fs/overlayfs, OVL_MAX_STACK. */
const MAX_OVERLAY = 500;
/** Hard links of one layer to files below it. */
const MAX_LOWER_LINKS = 100_000;
const PREFIX = '.wh.';
const OPAQUE = '.wh..wh..opq';

/** What tar says: the start of it, and the links it could not make. */
class Complaints {
  readonly links: LowerLink[] = [];
  text = '';
  #rest = '';

  take(piece: string): void {
    const lines = (this.#rest + piece).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      const link = failedLink(line);
      if (link !== undefined && this.links.length < MAX_LOWER_LINKS) this.links.push(link);
      else this.text = `${this.text}${line}\n`.slice(0, 2000);
    }
  }

  /** Nothing but links failed. */
  get onlyLinks(): boolean {
    return this.links.length > 0 && /^(tar: Exiting with failure status.*\n)?$/.test(this.text);
  }
}

/**
 * Extract a layer as it is stored; every byte of it is read, so that its digest is verified.
 *
 * @returns hard links whose targets the layer does not have
 */
async function extract(
  chunks: AsyncIterable<Uint8Array>,
  dir: string,
  logger: Logger,
  signal: AbortSignal,
): Promise<LowerLink[]> {
  const flags = ['--numeric-owner', '--same-owner', '-p', '--xattrs', '--xattrs-include=*'];
  const child = spawn('tar', ['-x', '-f', '-', '-C', dir, '--quoting-style=escape', ...flags], {
    stdio: ['pipe', 'ignore', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  });
  const stop = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', stop);
  const said = new Complaints();
  child.stderr.on('data', (piece: Buffer) => said.take(piece.toString('latin1')));
  const ended = new Promise<number | string | null>((done) => {
    child.on('error', (error) => {
      said.text = error.message;
      done(-1);
    });
    child.on('close', (code, by) => done(by ?? code));
  });
  let open = true;
  // tar stops reading at the mark of its end; what follows is only hashed
  child.stdin.on('error', () => (open = false));
  child.stdin.on('close', () => (open = false));
  const closed = once(child.stdin, 'close').catch(() => {});
  try {
    for await (const chunk of decoded(chunks, signal)) {
      if (open && !child.stdin.write(chunk))
        await Promise.race([once(child.stdin, 'drain').catch(() => {}), closed]);
    }
    child.stdin.end();
    const status = await ended;
    signal.throwIfAborted();
    if (status === 2 && said.onlyLinks) return said.links;
    const errors = said.text.trim();
    if (status !== 0) throw new Error(`tar ended with ${status}: ${errors}`);
    // such as attributes that are too large for the file system of the work directory: they will show as differences
    for (const line of errors.split('\n'))
      if (line !== '' && !line.includes(' time stamp ')) logger.warn(line);
    return [];
  } finally {
    signal.removeEventListener('abort', stop);
    child.stdin.destroy();
    stop();
    await ended;
  }
}

/** Whiteout files become what overlayfs understands. */
async function translate(dir: Buffer): Promise<void> {
  const slash = Buffer.from('/');
  const entries = await readdir(dir, { encoding: 'buffer', withFileTypes: true });
  const names = new Set(entries.map((entry) => entry.name.toString('latin1')));
  for (const entry of entries) {
    const path = Buffer.concat([dir, slash, entry.name]);
    const name = entry.name.toString('latin1');
    if (!name.startsWith(PREFIX)) {
      if (entry.isDirectory()) await translate(path);
      continue;
    }
    await rm(path, { recursive: true });
    if (name === OPAQUE) {
      setOpaque(dir);
      continue;
    }
    if (name.startsWith('.wh..wh.')) continue; // other marks of AUFS hide nothing
    const hidden = name.slice(PREFIX.length);
    const target = Buffer.concat([dir, slash, Buffer.from(hidden, 'latin1')]);
    if (!names.has(hidden)) makeNode(target, S_IFCHR, 0n);
    else if (entries.some((other) => other.name.toString('latin1') === hidden && other.isDirectory()))
      setOpaque(target);
  }
}

function setOpaque(dir: Buffer): void {
  setXattr(dir, Buffer.from('trusted.overlay.opaque'), Buffer.from('y'));
}

/** A mounted image. */
export interface MountedTree {
  root: string;
  close(): Promise<void>;
}

/**
 * Extract and mount an OCI image below `dir`.
 *
 * @throws UsageError not root, or too many layers; IntegrityError a layer is not what the manifest says
 */
export async function mountOci(
  source: ImageSource,
  layers: readonly Descriptor[],
  dir: string,
  logger: Logger,
  signal: AbortSignal,
): Promise<MountedTree> {
  if (process.getuid?.() !== 0)
    throw new UsageError('comparing file systems needs root: owners, devices and overlayfs', { exitCode: 1 });
  if (layers.length >= MAX_OVERLAY)
    throw new UsageError(`${layers.length} layers, overlayfs takes fewer than ${MAX_OVERLAY}`, {
      exitCode: 1,
    });
  const trees = join(dir, 'layers');
  const root = join(dir, 'mnt');
  const close = async (): Promise<void> => {
    try {
      unmount(root);
    } catch {
      try {
        unmount(root, MNT_DETACH);
      } catch {
        // it was not mounted
      }
    }
    await rm(trees, { recursive: true, force: true });
    await rm(root, { recursive: true, force: true });
  };
  try {
    await mkdir(join(trees, 'empty'), { recursive: true });
    await mkdir(root, { recursive: true });
    const links = layers.map((): LowerLink[] => []);
    await eachOf([...layers.entries()], LAYERS_AT_ONCE, async ([at, layer]) => {
      const tree = join(trees, String(at));
      await mkdir(tree);
      links[at] = await extract(source.layer(layer).open(signal), tree, logger, signal);
      await translate(Buffer.from(tree));
    });
    for (const [at, found] of links.entries()) await copyLowerLinks(found, trees, at, root);
    // relative names: the options of a mount must fit into one page
    const lower = [...layers.keys()].toReversed().join(':');
    const before = process.cwd();
    process.chdir(trees);
    try {
      mount('overlay', root, 'overlay', MS_RDONLY, `lowerdir=${lower}:empty`);
    } finally {
      process.chdir(before);
    }
    return { root, close };
  } catch (error) {
    await close();
    throw error;
  }
}
