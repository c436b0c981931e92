// Blobs that must stay: pinned by a user, or read by a kernel that nobody asks (EROFS mounts). A file beside the data says so, and
// outlives the process that wrote it; a pin for a kernel counts only in the boot in which it was made.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { toHex } from '../../base/bytes.ts';
import { bootId } from './map-header.ts';

export type PinKind = 'user' | 'kernel';

/** End of the names of pin files. */
export const PIN_SUFFIXES: Readonly<Record<PinKind, string>> = { user: '.pin', kernel: '.kernel_pin' };

function pinPath(workDir: string, blobId: string, kind: PinKind): string {
  return join(workDir, `${blobId}${PIN_SUFFIXES[kind]}`);
}

/** Keep a blob from being taken out of the cache. @throws an error of node:fs when the file cannot be written */
export function pinBlob(workDir: string, blobId: string, kind: PinKind): void {
  writeFileSync(pinPath(workDir, blobId, kind), `${toHex(bootId())}\n`);
}

/** Take a pin away. @returns false when there was none */
export function unpinBlob(workDir: string, blobId: string, kind: PinKind): boolean {
  const path = pinPath(workDir, blobId, kind);
  const there = existsSync(path);
  rmSync(path, { force: true });
  return there;
}

/** Why a blob must stay. */
export function pinsOf(workDir: string, blobId: string): PinKind[] {
  const pins: PinKind[] = [];
  if (existsSync(pinPath(workDir, blobId, 'user'))) pins.push('user');
  try {
    const boot = readFileSync(pinPath(workDir, blobId, 'kernel'), 'latin1').trim();
    if (boot === toHex(bootId())) pins.push('kernel');
  } catch {
    // none
  }
  return pins;
}
