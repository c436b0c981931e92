// What a test needs from the machine: programs, root, FUSE. Missing = a visible skip with its reason; in CI a failure.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';

function missing(reason: string): string {
  if (process.env['CI'] === 'true') throw new Error(`${reason} (CI must have it)`);
  return reason;
}

/** Path of a program in $PATH or the system folders, or undefined. */
export function findProgram(command: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];
  for (const folder of folders) {
    const path = join(folder === '' ? '.' : folder, command);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // not in this folder
    }
  }
  return undefined;
}

/**
 * Value for `skip` of a test that runs a foreign program.
 *
 * @returns false when it is installed, else the reason
 * @throws Error when it is missing and CI=true
 */
export function requirePeer(command: string): string | false {
  return findProgram(command) === undefined ? missing(`${command} is not installed`) : false;
}

/** Folder of upstream's Rust programs, nydus 2.2.0; docs/measured.md says how they are built. */
export const RUST_PEER = process.env['PEER'] ?? '/opt/nydus-peer/bin';

/** Value for `skip` of a test with upstream's builder. It comes from no registry of packages: never a failure in CI. */
export function rustBuilderMissing(): string | false {
  const path = join(RUST_PEER, 'nydus-image');
  return existsSync(path) ? false : `no ${path}: docs/measured.md says how to build it`;
}

/** Value for `skip` of a test that needs root (devices, owners, mount). */
export function requireRoot(): string | false {
  return process.getuid?.() === 0 ? false : missing('needs root');
}

/** Value for `skip` of a test that mounts with FUSE. */
export function requireFuse(): string | false {
  if (!existsSync('/dev/fuse')) return missing('no /dev/fuse: load the fuse module');
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch {
    return missing('/dev/fuse may not be opened: chmod 666 /dev/fuse');
  }
  if (process.getuid?.() !== 0 && findProgram('fusermount3') === undefined) {
    return missing('not root and no fusermount3');
  }
  return false;
}

/** Value for `skip` of a test that runs something in a mount namespace of its own. */
export function requireMountNamespace(): string | false {
  const { status, stderr, error } = spawnSync('unshare', ['-m', 'true'], { encoding: 'utf8' });
  return status === 0 ? false : missing(`no mount namespace: ${error?.message ?? stderr.trim()}`);
}

/** Value for `skip` of a test that needs a block device over a file. */
export function requireLoopDevice(): string | false {
  return existsSync('/dev/loop-control') ? false : missing('no loop devices: load the loop module');
}

/** Value for `skip` of a test that uses sudo, which must not ask for a password. */
export function requireSudo(): string | false {
  const { status, stderr, error } = spawnSync('sudo', ['-n', 'true'], { encoding: 'utf8' });
  return status === 0 ? false : missing(`sudo cannot be used: ${error?.message ?? stderr.trim()}`);
}

/** Value for `skip` of a test that uses a built program of ours, such as `bin/nydus-image`. */
export function requireBuilt(path: string): string | false {
  return existsSync(path) ? false : missing(`${path} is not built: run make`);
}

/** The first reason of several, for `skip`. */
export function firstReason(...reasons: (string | false)[]): string | false {
  return reasons.find((reason) => reason !== false) ?? false;
}
