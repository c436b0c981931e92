// The kernel's own EROFS as a judge of our v6 images: bootstrap and flat devices mounted straight from files.
// Source: mount(2); EROFS file-backed mounts since Linux 6.12, `device=` in the order of the blob table.
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { check, libcFunction } from '../../src/native/libc.ts';
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
