// Command lines of nydusd: golden cli/mistakes.jsonl, what is refused by name, and failures that say what to do next.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import {
  firstReason,
  goldenPath,
  requireFuse,
  requireMountNamespace,
  skipUnlessGolden,
  tempDir,
} from '../support/golden.ts';
import { programCommand, requireProgram, runProgram, type ProgramResult } from '../support/programs.ts';
import { mountsBelow } from '../support/temporary.ts';

const skip = firstReason(requireProgram('nydusd'));

let work: string;

before(() => {
  work = tempDir();
  mkdirSync(join(work, 'mnt'));
  mkdirSync(join(work, 'blobs'));
  writeFileSync(join(work, 'junk'), Buffer.alloc(16384, 7));
  writeFileSync(join(work, 'f'), 'relative\n');
  writeFileSync(join(work, 'bad.json'), '{');
  const config = {
    device: {
      backend: { type: 'localfs', config: { dir: 'blobs' } },
      cache: { type: 'blobcache', config: { work_dir: 'cache' } },
    },
    mode: 'direct',
  };
  writeFileSync(join(work, 'ok.json'), JSON.stringify(config));
  const image = goldenPath('cases', 'tiny-v6-zstd-blake3', 'bootstrap');
  if (image !== undefined) copyFileSync(image, join(work, 'boot'));
});

function nydusd(...args: string[]): ProgramResult {
  return runProgram('nydusd', args, { cwd: work, timeout: 20_000 });
}

interface Mistake {
  args: string[];
  exit: number | string;
  stdout?: string;
  stderr?: string;
}

/** Mistakes about what comes with later releases: refused by name, tested below. */
const LATER = /^(singleton|virtiofs|uffd|nbd)$/;

function mistakes(): Mistake[] {
  return (
    readFileSync(goldenPath('cli', 'mistakes.jsonl') ?? '', 'utf8')
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => JSON.parse(line) as Mistake)
      .filter(({ args, exit }) => args[0] === 'nydusd' && typeof exit === 'number' && exit !== 0)
      .filter(({ args }) => !args.some((arg) => LATER.test(arg)))
      // upstream ends where it may not raise the limit of open files, we go on
      .filter(({ args }) => args[args.indexOf('--rlimit-nofile') + 1] !== '1000000')
  );
}

/** The usage line repeats what was given; in which order is not contractual. */
function sortUsage(text: string): string {
  return text.replace(/^Usage: nydusd (.*)$/m, (_, words: string) => {
    return `Usage: nydusd ${words
      .split(/ (?=--)/)
      .toSorted()
      .join(' ')}`;
  });
}

describe('nydusd command line', { skip }, () => {
  const golden = firstReason(
    skipUnlessGolden('cli', 'mistakes.jsonl'),
    skipUnlessGolden('cases', 'tiny-v6-zstd-blake3'),
  );
  it('nydusd: mistakes end with the status of golden/cli, bad usage with its text', { skip: golden }, () => {
    const cases = mistakes();
    assert.ok(cases.length >= 20, `${cases.length} mistakes`);
    for (const { args, exit, stderr = '' } of cases) {
      const given = args.slice(1).map((arg) => arg.replace('$WORK/cli/mnt', join(work, 'mnt')));
      const result = nydusd(...given);
      const name = args.join(' ');
      assert.equal(result.status, exit, `${name}\n${result.stderr}`);
      if (exit === 2) assert.equal(sortUsage(result.stderr), sortUsage(stderr), name);
      else assert.match(result.stderr, /Error: /, name);
      assert.equal(result.stdout, '', name);
    }
    assert.deepEqual(mountsBelow(work), []);
  });

  it('nydusd: what comes with later releases is refused by name, before anything happens', () => {
    const cases: [args: string[], named: string][] = [
      [['singleton'], 'singleton'],
      [['virtiofs', '--sock', 'x'], 'virtiofs'],
      [['nbd', '/dev/nbd0'], 'nbd'],
      [['uffd', '--sock', 'x'], 'uffd'],
    ];
    for (const [args, named] of cases) {
      const { status, stderr } = nydusd(...args);
      assert.equal(status, 2, `${args.join(' ')}\n${stderr}`);
      assert.ok(stderr.includes(named), stderr);
      assert.match(stderr, /not (yet )?supported|later release/, stderr);
    }
  });

  it('nydusd: --version is the block of nydusd.md 1.11, and its version begins with v', () => {
    const { status, stdout } = nydusd('--version');
    assert.equal(status, 0);
    assert.match(
      stdout,
      /^nydusd \rVersion: \tv\d+\.\d+\.\d+\nGit Commit: \t.+\nBuild Time: \t.+\nProfile: \t(debug|release)\nRustc: \t\tnode v\d+.*\n$/,
    );
    assert.equal(/Git Commit:\s*(.+)/.exec(stdout)?.[1], /Git Commit: \t(.+)/.exec(stdout)?.[1]);
  });

  it('nydusd: failures name the next step', { skip: golden }, () => {
    const mnt = join(work, 'mnt');
    const cases: [args: string[], message: RegExp, hint: RegExp][] = [
      [['-M', join(work, 'none')], /mountpoint .*none: ENOENT/, /Hint: create it first: mkdir -p /],
      [['-M', join(work, 'junk')], /junk is not a directory/, /Hint: name a directory with --mountpoint/],
      [
        ['-M', mnt, '-B', 'boot'],
        /both --config and --localfs-dir are missing/,
        /Hint: say where the blobs are/,
      ],
      [
        ['-M', mnt, '-B', 'boot', '-C', 'none.json'],
        /cannot read the configuration none\.json/,
        /Hint: .*--config/,
      ],
      [
        ['-M', mnt, '-B', 'boot', '-C', 'bad.json'],
        /line 1, column 1: EOF while parsing an object/,
        /Hint: .*TOML/,
      ],
      [
        ['-M', mnt, '-A', '/none/api.sock'],
        /cannot listen on \/none\/api\.sock/,
        /Hint: create its directory first: mkdir -p \/none/,
      ],
      [['-M', mnt, '-A', join(work, 'junk')], /junk exists and is not a socket/, /Hint: name another path/],
      [['-M', mnt, '-L', '/none/x.log'], /cannot open the log file \/none\/x\.log/, /Hint: .*--log-file/],
      [
        ['-M', mnt, '--log-rotation-size', 'x'],
        /invalid value for option `log-rotation-size`: x/,
        /Hint: .*whole number/,
      ],
    ];
    for (const [args, message, hint] of cases) {
      const { status, stderr } = nydusd(...args);
      assert.equal(status, 1, `${args.join(' ')}\n${stderr}`);
      assert.match(stderr, message);
      assert.match(stderr, hint);
      assert.match(stderr, /^Code: ERR_NYDUS_USAGE$/m);
    }
    assert.deepEqual(mountsBelow(work), []);
    assert.ok(existsSync(join(work, 'junk')));
  });

  const fuse = firstReason(golden, requireFuse());
  it('nydusd: a broken image leaves no mount and no socket', { skip: fuse }, () => {
    const sock = join(work, 'api.sock');
    const args = ['-M', join(work, 'mnt'), '-A', sock, '-C', 'ok.json', '-B'];
    for (const [image, message] of [
      ['none', /cannot open bootstrap none: ENOENT/],
      ['junk', /invalid RAFS superblock/],
      ['boot', /blob/],
    ] as const) {
      const { status, stderr } = nydusd(...args, image);
      assert.equal(status, 1, stderr);
      assert.match(stderr, message);
      assert.deepEqual(mountsBelow(work), []);
      assert.equal(existsSync(sock), false);
    }
  });

  it(
    'nydusd: without /dev/fuse the error says how to get it',
    { skip: firstReason(fuse, requireMountNamespace()) },
    () => {
      // an empty /dev in a mount namespace of its own
      const [file, ...first] = programCommand('nydusd');
      const script = 'mount -t tmpfs none /dev && exec "$@"';
      const args = ['-m', 'sh', '-c', script, 'sh', file, ...first, '-M', join(work, 'mnt')];
      const result = spawnSync('unshare', args, { cwd: work, encoding: 'utf8', timeout: 20_000 });
      assert.equal(result.status, 1, result.stderr);
      assert.match(result.stderr, /Error: cannot open \/dev\/fuse: ENOENT/);
      assert.match(
        result.stderr,
        /Hint: load the fuse module \(modprobe fuse\); in a container, pass the device/,
      );
    },
  );
});
