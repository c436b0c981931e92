// What this machine lets nydusd do: one line per thing looked at, with what to do where it is not well.
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import { messageOf, NydusError } from '../../base/errors.ts';
import { getResourceLimit, RLIMIT_NOFILE } from '../../native/process.ts';
import { HttpClient } from '../../registry/http.ts';
import { redactUrl } from '../../registry/redact.ts';
import { endGuardian, startGuardian, takeFromGuardian } from '../../serve/guardian/guardian.ts';
import { readRegistryConfig } from '../../storage/backend/registry-config.ts';
import type { BackendConfig, ConfigV2 } from '../../storage/config.ts';
import { tryDriver, type TriedDriver } from './try-driver.ts';

/** `no` = does not work and is needed by something; `limited` = works, with a restriction. */
export type Verdict = 'yes' | 'limited' | 'no';

export interface Finding {
  what: string;
  verdict: Verdict;
  detail: string;
  /** what to do; '' when there is nothing */
  advice: string;
}

/** Capabilities that matter. Source: include/uapi/linux/capability.h */
const CAPABILITIES = [
  { bit: 21, name: 'CAP_SYS_ADMIN', for: 'mounting by the kernel, pre-content events', needed: true },
  { bit: 19, name: 'CAP_SYS_PTRACE', for: 'taking over what a guardian holds', needed: false },
  { bit: 24, name: 'CAP_SYS_RESOURCE', for: 'raising the limit of open files', needed: false },
] as const;

const FILE_SYSTEMS: Record<number, string> = {
  0xef53: 'ext4',
  0x5846_5342: 'xfs',
  0x9123_683e: 'btrfs',
  0x0102_1994: 'tmpfs',
  0x794c_7630: 'overlayfs',
  0x6573_5546: 'FUSE',
  0x6969: 'NFS',
};
const MIN_FREE = 1 << 30;
const WANTED_FILES = 65_536;
const REACH_MS = 5000;

function finding(what: string, verdict: Verdict, detail: string, advice = ''): Finding {
  return { what, verdict, detail, advice };
}

function failure(what: string, verdict: Verdict, error: unknown, advice = ''): Finding {
  const hint = error instanceof NydusError ? error.hint : undefined;
  return finding(what, verdict, messageOf(error), hint ?? advice);
}

/** The kernel and its file systems. */
export function checkKernel(): Finding[] {
  const known = readFileSync('/proc/filesystems', 'utf8');
  const has = (name: string): boolean => new RegExp(`\\t${name}$`, 'm').test(known);
  const missing = ['fuse', 'erofs'].filter((name) => !has(name));
  return [
    missing.length === 0
      ? finding('kernel', 'yes', `Linux ${release()}, with fuse and erofs`)
      : finding(
          'kernel',
          'limited',
          `Linux ${release()}, without ${missing.join(' and ')}`,
          `load what is missing: modprobe ${missing.join(' ')}`,
        ),
  ];
}

/** Who we are and what we may. */
export function checkPrivileges(): Finding[] {
  const status = readFileSync('/proc/self/status', 'latin1');
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  const missing = CAPABILITIES.filter(({ bit }) => ((effective >> BigInt(bit)) & 1n) === 0n);
  const uid = process.geteuid?.() ?? -1;
  if (missing.length === 0) return [finding('privileges', 'yes', `uid ${uid}, all that is useful`)];
  const detail = missing.map(({ name, for: use }) => `no ${name} (${use})`).join(', ');
  return [
    finding(
      'privileges',
      'limited',
      `uid ${uid}, ${detail}`,
      uid === 0 ? 'grant them to the container or the service' : 'run as root for more than FUSE',
    ),
  ];
}

/** /dev/fuse, and the helper of those who are not root. */
export function checkFuseDevice(): Finding[] {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch (error) {
    return [failure('/dev/fuse', 'no', error, 'modprobe fuse; in a container pass --device /dev/fuse')];
  }
  if (process.geteuid?.() === 0) return [finding('/dev/fuse', 'yes', 'can be opened')];
  const helper = (process.env['PATH'] ?? '').split(':').some((dir) => existsSync(`${dir}/fusermount3`));
  return [
    helper
      ? finding('/dev/fuse', 'yes', 'can be opened; fusermount3 mounts')
      : finding('/dev/fuse', 'no', 'can be opened, but there is no fusermount3', 'apt install fuse3'),
  ];
}

/** Each driver by a real mount with its cache in `dir`. */
export async function checkDrivers(dir: string): Promise<Finding[]> {
  const found: Finding[] = [];
  for (const driver of ['fuse', 'fileio', 'fanotify'] as const satisfies TriedDriver[]) {
    const what = `driver ${driver} with a cache in ${dir}`;
    try {
      await tryDriver(driver, dir);
      found.push(finding(what, 'yes', 'mounted and read'));
    } catch (error) {
      // the others are a matter of speed
      found.push(
        failure(
          what,
          driver === 'fuse' ? 'no' : 'limited',
          error,
          'the driver before it serves as well, slower',
        ),
      );
    }
  }
  return found;
}

/** A process that holds descriptors, and taking them from it. */
export async function checkGuardian(): Promise<Finding[]> {
  const fd = openSync('/dev/null', 'r');
  try {
    const guardian = await startGuardian([fd], () => {});
    try {
      const taken = takeFromGuardian(guardian, 1);
      for (const copy of taken ?? []) closeSync(copy);
      return [finding('guardian', 'yes', 'readers wait for the next daemon after a crash')];
    } finally {
      endGuardian(guardian);
    }
  } catch (error) {
    return [
      failure('guardian', 'limited', error, 'allow pidfd_getfd: CAP_SYS_PTRACE, no seccomp rule against it'),
    ];
  } finally {
    closeSync(fd);
  }
}

/** The file system of a cache. */
export function checkCacheDir(dir: string): Finding[] {
  const what = `cache ${dir}`;
  try {
    accessSync(dir, constants.W_OK);
    const { type, bavail, bsize } = statfsSync(dir);
    const free = bavail * bsize;
    const name = FILE_SYSTEMS[type] ?? `file system 0x${type.toString(16)}`;
    const detail = `${name}, ${(free / 2 ** 30).toFixed(1)} GiB free`;
    return [
      free < MIN_FREE
        ? finding(what, 'limited', detail, 'make room: what does not fit is fetched again and again')
        : finding(what, 'yes', detail),
    ];
  } catch (error) {
    return [failure(what, 'no', error, `create it, writable: mkdir -p ${dir}`)];
  }
}

/** Limits that a busy daemon meets. */
export function checkLimits(): Finding[] {
  const { soft, hard } = getResourceLimit(RLIMIT_NOFILE);
  const detail = `${soft} open files, ${hard} at most`;
  const found = [
    hard < WANTED_FILES
      ? finding('limit of open files', 'limited', detail, 'LimitNOFILE=1000000 in the service')
      : finding('limit of open files', 'yes', detail),
  ];
  try {
    const groups = readFileSync('/proc/sys/fs/fanotify/max_user_groups', 'latin1').trim();
    found.push(finding('fanotify groups per user', 'yes', `${groups}; a daemon needs one`));
  } catch {
    found.push(finding('fanotify groups per user', 'limited', 'the kernel has no fanotify'));
  }
  return found;
}

async function reach(backend: BackendConfig): Promise<Finding> {
  const what = `backend ${backend.type}`;
  if (backend.type === 'localfs') {
    const dir = backend.localfs?.dir ?? '';
    const path = dir === '' ? (backend.localfs?.blob_file ?? '') : dir;
    try {
      accessSync(path, constants.R_OK);
      return finding(what, 'yes', `${path} can be read`);
    } catch (error) {
      return failure(what, 'no', error, 'name a directory that has the blobs');
    }
  }
  if (backend.type !== 'registry' || backend.registry === null)
    return finding(what, 'limited', 'not looked at', 'the first read shows');
  const config = readRegistryConfig(backend.registry);
  const url = new URL(`${config.scheme}://${config.host}/v2/`);
  const http = new HttpClient({ skipVerify: config.skip_verify, connectTimeoutMs: REACH_MS });
  try {
    const answer = await http.send({ method: 'GET', url, totalTimeoutMs: REACH_MS });
    await answer.discard();
    const { status } = answer;
    const asks = status === 401 ? ', and asks for credentials, as most do' : '';
    return status < 500
      ? finding(what, 'yes', `${redactUrl(url)} answers ${status}${asks}`)
      : finding(what, 'no', `${redactUrl(url)} answers ${status}`, 'look at the registry');
  } catch (error) {
    return failure(what, 'no', error, 'check host, port, proxy and certificates');
  } finally {
    await http.close();
  }
}

/** What the configuration names. */
export async function checkBackend(config: ConfigV2): Promise<Finding[]> {
  return config.backend === null ? [] : [await reach(config.backend)];
}
