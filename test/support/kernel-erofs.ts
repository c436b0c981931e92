// The kernel's own EROFS as a judge of our v6 images: bootstrap and flat devices mounted straight from files.
// Source: mount(2); EROFS file-backed mounts since Linux 6.12, `device=` in the order of the blob table.
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createPreContentGroup, markPreContent } from '../../src/native/fanotify.ts';
import { check, libcFunction } from '../../src/native/libc.ts';
import { mayFreeze } from '../../src/serve/guardian/cgroups.ts';
import { requireRoot } from './prerequisites.ts';

const MS_RDONLY = 1;

type Mount = (source: Buffer, target: Buffer, type: Buffer, flags: number, data: Buffer) => number;

let mount: Mount | undefined;

function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

/**
 * Mount a v6 bootstrap read-only. mount(8) is avoided: it would put a loop device in between.
 *
 * @param bootstrap metadata file
 * @param devices   uncompressed blob address spaces, in the order of the blob table
 * @param target    existing directory
 * @throws SystemError what the kernel says; its log has the details
 */
export function mountErofs(bootstrap: string, devices: string[], target: string): void {
  mount ??= libcFunction<Mount>(
    'int mount(void *src, void *dir, void *type, unsigned long flags, void *data)',
  );
  const options = devices.map((device) => `device=${device}`).join(',');
  check(
    'mount',
    mount(cString(bootstrap), cString(target), cString('erofs'), MS_RDONLY, cString(options)),
    options,
  );
}

/** Value for `skip` of a test that needs file-backed EROFS mounts. */
export function requireErofs(): string | false {
  const root = requireRoot();
  if (root !== false) return root;
  const known = readFileSync('/proc/filesystems', 'utf8').includes('erofs');
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const reason = !known
    ? 'kernel without EROFS: modprobe erofs'
    : major < 6 || (major === 6 && minor < 12)
      ? `Linux ${release()} mounts EROFS from block devices only, 6.12 is needed`
      : false;
  if (reason !== false && process.env['CI'] === 'true') throw new Error(`${reason} (CI must have it)`);
  return reason;
}

/** Value for `skip` of a test that needs pre-content events on the temporary directory's file system. */
export function requirePreContent(): string | false {
  const erofs = requireErofs();
  if (erofs !== false) return erofs;
  const dir = mkdtempSync(join(tmpdir(), 'nydus-mark-'));
  const fd = openSync(join(dir, 'file'), 'w+');
  let group = -1;
  try {
    group = createPreContentGroup();
    markPreContent(group, fd);
    return false;
  } catch (error) {
    const reason = `no pre-content events: ${String(error)}; Linux 6.14 and ext4, xfs or btrfs are needed`;
    if (process.env['CI'] === 'true') throw new Error(`${reason} (CI must have it)`, { cause: error });
    return reason;
  } finally {
    if (group >= 0) closeSync(group);
    closeSync(fd);
    rmSync(dir, { recursive: true });
  }
}

/** Value for `skip` of a test that needs guardians that can be frozen: not in a container, and a kernel with that controller. */
export function requireFreezer(): string | false {
  if (!mayFreeze()) return 'no guardian is frozen inside a container, or with NYDUSD_FREEZE=0';
  if (/^freezer\s/m.test(readFileSync('/proc/cgroups', 'utf8'))) return false;
  return 'kernel without CONFIG_CGROUP_FREEZER';
}
