// EROFS of this kernel, tried with images of one page: metadata alone, and data in a file of its own (`device=`). The mounts are
// nowhere to be seen, and end with their descriptor. Source: rafs-metadata.md 4.18; Linux 6.12 mounts files without a loop device.
import { closeSync, openSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, UsageError } from '../../base/errors.ts';
import { S_IFDIR, S_IFLNK } from '../../format/flags.ts';
import { encodeBootstrap6 } from '../../format/rafs6/writer.ts';
import { plainNode, type WriterNode } from '../../format/writer-input.ts';
import { SystemError } from '../../native/libc.ts';
import { createMount, MOUNT_ATTR_RDONLY, type MountOption } from '../../native/mount-api.ts';
import { PROBE_FILE, probeImage } from '../../serve/erofs/probe-image.ts';
import type { Check, CheckContext, Outcome } from './finding.ts';

const LINK = 'link';
const TARGET = 'served by the kernel';

const FIXES: Record<string, string> = {
  EPERM: 'run as root, or with CAP_SYS_ADMIN',
  ENODEV: 'load EROFS (modprobe erofs), or boot a kernel with CONFIG_EROFS_FS',
  ENOTBLK:
    'Linux 6.12 or later with CONFIG_EROFS_FS_BACKED_BY_FILE is needed, and the file on ext4, xfs or btrfs',
  ENOTSUP: 'put the cache (work_dir) on ext4, xfs or btrfs',
  EINVAL: 'Linux 6.14 or later is needed',
};

/** What to do about a kernel that refuses. */
export function kernelFix(error: unknown): string | undefined {
  return error instanceof SystemError ? FIXES[error.code] : undefined;
}

/** Image of a root directory with one symbolic link. */
export function imageWithoutData(): Buffer {
  const target = Buffer.from(TARGET);
  const link: WriterNode = {
    ...plainNode(LINK, S_IFLNK | 0o777, 2),
    mtime: 1,
    size: target.length,
    target,
  };
  const root: WriterNode = {
    ...plainNode('', S_IFDIR | 0o755, 1),
    mtime: 1,
    nlink: 2,
    children: [link],
  };
  const tree = {
    nodes: [root, link],
    parents: Uint32Array.of(0, 0, 1),
    childIndexes: Uint32Array.of(0, 2, 0),
    inodes: 2,
  };
  const facts = { chunkSize: 4096, compressor: 'none', digester: 'blake3', explicitUidGid: true } as const;
  return Buffer.from(encodeBootstrap6(tree, [], facts, []));
}

function mountAndRead(options: readonly MountOption[], read: (root: string) => boolean): void {
  const mount = createMount('erofs', [...options, ['ro']], MOUNT_ATTR_RDONLY);
  try {
    if (!read(`/proc/self/fd/${mount}`)) throw new UsageError('the kernel shows other content');
  } finally {
    closeSync(mount);
  }
}

function outcome(work: () => void, detail: string): Outcome {
  try {
    work();
    return { status: 'ok', detail };
  } catch (error) {
    return { status: 'fail', detail: messageOf(error), fix: kernelFix(error) };
  }
}

function tryMetadata(dir: string): Outcome {
  const bootstrap = join(dir, 'bootstrap');
  writeFileSync(bootstrap, imageWithoutData());
  return outcome(
    () => mountAndRead([['source', bootstrap]], (root) => readlinkSync(join(root, LINK)) === TARGET),
    'an image in a file is mounted without a loop device',
  );
}

function tryDevice(dir: string): Outcome {
  const image = probeImage(process.pid);
  const [bootstrap, device] = [join(dir, 'bootstrap'), join(dir, 'device')];
  writeFileSync(bootstrap, image.bootstrap);
  writeFileSync(device, image.content);
  const fd = openSync(device, 'r');
  try {
    const options: MountOption[] = [
      ['source', bootstrap],
      ['device', `/proc/self/fd/${fd}`],
    ];
    return outcome(
      () => mountAndRead(options, (root) => readFileSync(join(root, PROBE_FILE)).equals(image.content)),
      'its data is read from a second file (device=)',
    );
  } finally {
    closeSync(fd);
  }
}

/** @param subject existing directory that the files are put into */
export function erofsChecks(subject: string): Check[] {
  const row = (id: string, name: string, attempt: (dir: string) => Outcome): Check => ({
    id,
    group: 'drivers',
    name,
    subject,
    essential: false,
    run: ({ scratch }: CheckContext) => attempt(scratch.directory(subject)),
  });
  return [row('erofs.metadata', 'EROFS', tryMetadata), row('erofs.device', 'EROFS device', tryDevice)];
}
