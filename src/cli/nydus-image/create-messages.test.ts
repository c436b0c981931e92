// Every literal message of nydus-image 2.3 that `create` ends with, in the order of its checks: what upstream's transcript has of
// it, and a table of the rest. Runs in this process. Source: nydus-image-and-nydusify.md 2.3, golden cli/mistakes.jsonl.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { goldenPath, skipUnlessGolden, tempDir } from '../../../test/support/golden.ts';
import { runProgram } from '../run.ts';
import { nydusImage } from './program.ts';

interface Result {
  status: number;
  stderr: string;
}

/** Run `nydus-image` here. @param stdin what it reads; an error is what reading fails with */
async function run(argv: readonly string[], stdin: string | Error = ''): Promise<Result> {
  let stderr = '';
  const sink = new Writable({
    write: (chunk: Buffer, _, done) => {
      stderr += String(chunk);
      done();
    },
  });
  const input = Readable.from(
    (function* () {
      if (stdin instanceof Error) throw stdin;
      yield Buffer.from(stdin);
    })(),
  );
  const stdout = new Writable({ write: (_chunk, _encoding, done) => done() });
  const status = await runProgram(nydusImage, argv, { stdin: input, stdout, stderr: sink, env: {} });
  return { status, stderr };
}

const QUIET = ['create', '--log-level', 'error'];
const OUTPUT = ['--blob-dir', 'blobs', '--bootstrap', 'b'];

/** One check each, in upstream's order: arguments that fail it, and what is said. */
const CHECKS: readonly [rule: string, args: readonly string[], message: string][] = [
  ['1', ['--blob-id', 'x'.repeat(256)], 'blob id is limited to length 255'],
  ['3', ['--chunk-size', '0x1001'], 'invalid chunk size: 4097'],
  ['3', ['--chunk-size', '0'], 'invalid chunk size: 0'],
  ['3', ['--chunk-size', '0x2000000'], 'invalid chunk size: 33554432'],
  ['3', ['--chunk-size', '1m'], 'invalid chunk size 1m'],
  ['4', ['--batch-size', '0x1001'], 'invalid batch size: 4097'],
  ['4', ['--batch-size', 'abc'], 'invalid batch size abc'],
  ['4', ['--batch-size', '0x200000'], 'batch size 0x200000 is bigger than chunk size 0x100000'],
  ['5', ['--blob-cache-dir', 'none'], 'directory to store blob cache does not exist'],
  ['6', ['--blob-dir', 'none'], 'directory to store blobs does not exist'],
  [
    '6',
    [],
    'both --blob and --blob-dir are missing, please specify one to store the generated data blob file',
  ],
];

describe('nydus-image create, messages', () => {
  let work = '';
  let start = '';
  before(() => {
    start = process.cwd();
    work = tempDir();
    for (const dir of ['in/tiny', 'tar', 'blobs']) mkdirSync(join(work, dir), { recursive: true });
    writeFileSync(join(work, 'in/tiny/file'), 'content');
    writeFileSync(join(work, 'tar/tiny.tar'), Buffer.alloc(10_240));
    writeFileSync(join(work, 'junk'), 'no bootstrap'.repeat(1000));
    writeFileSync(join(work, 'bad.json'), '{');
    process.chdir(work);
  });
  after(() => process.chdir(start));

  it('nydus-image create: each check of 2.3, alone', async () => {
    for (const [rule, args, message] of CHECKS) {
      const storage = rule === '5' || rule === '6' ? ['--bootstrap', 'b'] : OUTPUT;
      const { status, stderr } = await run([...QUIET, ...storage, ...args, 'in/tiny']);
      assert.deepEqual([status, stderr.split('\n')[0]], [1, `Error: ${message}`], args.join(' '));
    }
  });

  it('nydus-image create: of two mistakes the earlier check of 2.3 is told', async () => {
    for (const [at, [rule, args, message]] of CHECKS.entries()) {
      for (const [later, more] of CHECKS.slice(at + 1)) {
        // the same option twice is another mistake, and two places for the data exclude each other
        if (later === rule || (rule === '5' && later === '6')) continue;
        const output = later === '5' || later === '6' ? ['--bootstrap', 'b'] : OUTPUT;
        const argv = [...QUIET, ...output, ...args, ...more, 'in/tiny'];
        const { status, stderr } = await run(argv);
        assert.deepEqual([status, stderr.split('\n')[0]], [1, `Error: ${message}`], argv.join(' '));
      }
    }
  });

  it('nydus-image create: the rest of 2.3', async () => {
    const cases: [args: string[], message: string][] = [
      [
        [...OUTPUT, '--fs-version', '5', '--batch-size', '0x1000'],
        '`--batch-size` with non-zero value conflicts with `--fs-version 5`',
      ],
      [
        [...OUTPUT, '--fs-version', '5', '--features', 'blob-toc'],
        "`--features blob-toc` can't be used with `--version 5` ",
      ],
      [['--blob', 'data', '--blob-dir', 'none'], 'Directory to store blobs does not exist'],
      [['--blob-dir', 'blobs', '--bootstrap', 'none/b'], 'build failed'],
    ];
    for (const [args, message] of cases) {
      const { status, stderr } = await run([...QUIET, ...args, 'in/tiny']);
      assert.deepEqual([status, stderr.split('\n')[0]], [1, `Error: ${message}`], args.join(' '));
    }
  });

  it('nydus-image create: stdin that cannot be read is told before everything but the blob id', async () => {
    const broken = new Error('the pipe broke');
    const argv = [...QUIET, '--prefetch-policy', 'fs', '--chunk-size', '1', ...OUTPUT, 'in/tiny'];
    const { status, stderr } = await run(argv, broken);
    assert.equal(status, 1);
    assert.equal(stderr, 'Error: failed to get prefetch patterns\n\nCaused by:\n    the pipe broke\n');
    const first = await run([...argv, '--blob-id', 'x'.repeat(256)], broken);
    assert.match(first.stderr, /^Error: blob id is limited to length 255\n/);
  });

  it('nydus-image create: places of data exclude each other; the one given first is named first (exit 2)', async () => {
    const cache = ['--blob-cache-dir', 'c'] as const;
    const cacheText = "'--blob-cache-dir <blob-cache-dir>'";
    const cases: [args: readonly string[], shown: string][] = [
      [['--blob-dir', 'blobs'], "'--blob-dir <blob-dir>'"],
      [['--blob', 'data'], "'--blob <blob>'"],
      [['--blob-inline-meta'], "'--blob-inline-meta'"],
      [['--compressor', 'none'], "'--compressor <compressor>'"],
    ];
    for (const [args, shown] of cases) {
      const rest = args[0] === '--blob-inline-meta' ? ['in/tiny'] : ['--bootstrap', 'b', 'in/tiny'];
      const there = await run([...QUIET, ...args, ...cache, ...rest]);
      assert.equal(there.status, 2);
      assert.ok(there.stderr.includes(`argument ${shown} cannot be used with ${cacheText}`), there.stderr);
      const back = await run([...QUIET, ...cache, ...args, ...rest]);
      assert.ok(back.stderr.includes(`argument ${cacheText} cannot be used with ${shown}`), back.stderr);
    }
  });

  it('nydus-image create: mistakes come with the next step', async () => {
    const cases: [args: string[], hint: string][] = [
      [['--blob-dir', 'none', '--bootstrap', 'b', 'in/tiny'], 'create it first: mkdir -p none'],
      [['--blob-cache-dir', 'none', '--bootstrap', 'b', 'in/tiny'], 'create it first: mkdir -p none'],
      [[...OUTPUT, 'tar/tiny.tar'], 'a tar is read with --type tar-rafs, a gzipped one with targz-rafs'],
      [['--type', 'tar-rafs', ...OUTPUT, 'in/tiny'], 'a directory is read with --type dir-rafs'],
      [['--blob-dir', 'blobs', '--bootstrap', 'none/b', 'in/tiny'], 'create it first: mkdir -p none'],
      [['--blob-dir', 'blobs', '--bootstrap', 'in', 'in/tiny'], 'in is a directory: name a file'],
    ];
    for (const [args, hint] of cases) {
      const { stderr } = await run([...QUIET, ...args]);
      assert.match(stderr, new RegExp(`^Hint: ${hint}$`, 'm'), args.join(' '));
    }
  });

  it(
    'nydus-image create: what upstream was seen to answer with exit 1',
    { skip: skipUnlessGolden('cli', 'mistakes.jsonl') },
    async () => {
      await run([...QUIET, '--blob-dir', 'blobs', '--bootstrap', 'boot', 'in/tiny']);
      await run([...QUIET, '--fs-version', '5', '--blob-dir', 'blobs', '--bootstrap', 'boot5', 'in/tiny']);
      const later = /ref$|tarfs$|estargz/;
      const lines = readFileSync(goldenPath('cli', 'mistakes.jsonl') ?? '', 'utf8')
        .trim()
        .split('\n');
      const all = lines
        .map((line) => JSON.parse(line) as { args: string[]; exit: number; stderr: string })
        .filter(({ args, exit }) => args[0] === 'nydus-image' && args[1] === 'create' && exit === 1)
        // types of a later version; a log line of upstream's reader; files outside of the tree
        .filter(({ args }) => !args.some((arg) => later.test(arg)) && !args.includes('--attributes'))
        .filter(({ stderr }) => stderr.startsWith('Error: '));
      for (const { args, stderr } of all) {
        const ours = await run(args.slice(1).map((arg) => arg.replace('$WORK', work)));
        const [first, ...rest] = stderr.replaceAll('$WORK', work).trimEnd().split('\n');
        const name = `${args.join(' ')}\n${ours.stderr}`;
        assert.equal(ours.status, 1, name);
        assert.ok(ours.stderr.startsWith(first ?? '-'), name);
        for (const cause of rest.filter((line) => line !== '' && line !== 'Caused by:'))
          assert.ok(ours.stderr.includes(cause.replace(/^ +(?:\d+: )?/, '')), name);
      }
      assert.ok(all.length >= 24, `${all.length} command lines compared`);
    },
  );
});
