// `make test`: installs what the tests need from Debian when it is missing and we may, then runs every test.
// Arguments are passed to `node --test` as files, so `node tools/test.ts src/cli/parse.test.ts` runs one.
import { spawnSync } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, join } from 'node:path';

/** A program that tests run, and the Debian package that has it. */
const PEERS: readonly (readonly [program: string, pkg: string])[] = [
  ['mkfs.erofs', 'erofs-utils'],
  ['fusermount3', 'fuse3'],
  ['getfattr', 'attr'],
  ['python3', 'python3-minimal'],
  ['getfacl', 'acl'],
  ['mkfs.ext4', 'e2fsprogs'],
  ['mkfs.xfs', 'xfsprogs'],
  ['mkfs.btrfs', 'btrfs-progs'],
  ['mount', 'mount'],
  ['curl', 'curl'],
  ['tar', 'tar'],
  ['sudo', 'sudo'],
  ['openssl', 'openssl'],
  ['unshare', 'util-linux'],
  ['script', 'bsdutils'],
  ['zstd', 'zstd'],
  ['skopeo', 'skopeo'],
  ['umoci', 'umoci'],
  ['docker-registry', 'docker-registry'],
  ['sfdisk', 'fdisk'],
  ['nginx', 'nginx-light'],
  ['squid', 'squid'],
];
/** A test file that takes longer than this hangs, ms. */
const TIMEOUT = 600_000;

function isInstalled(program: string): boolean {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => existsSync(join(folder, program)));
}

function installPeers(): void {
  const packages = PEERS.filter(([program]) => !isInstalled(program)).map(([, pkg]) => pkg);
  if (packages.length === 0) return;
  if (process.getuid?.() !== 0 || !isInstalled('apt-get')) {
    console.error(`tests that need them are skipped: ${packages.join(' ')} not installed`);
    return;
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  spawnSync('apt-get', ['update', '-qq'], { stdio: 'inherit', env });
  const args = ['install', '-y', '-qq', '--no-install-recommends', ...packages];
  const { status } = spawnSync('apt-get', args, { stdio: ['ignore', 'ignore', 'inherit'], env });
  if (status !== 0) console.error(`apt-get could not install ${packages.join(' ')}`);
}

installPeers();
const asked = process.argv.slice(2);
const files = asked.length > 0 ? asked : globSync(['src/**/*.test.ts', 'test/**/*.test.ts']).sort();
const workers = Math.max(1, availableParallelism());
const flags = [`--test-concurrency=${workers}`, `--test-timeout=${TIMEOUT}`, '--test-reporter=spec'];
const { status } = spawnSync(process.execPath, ['--test', ...flags, ...files], { stdio: 'inherit' });
process.exit(status ?? 1);
