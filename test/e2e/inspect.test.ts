// Every golden command line of nydus-image that reaches files: same exit status, stdout and error report as upstream, at
// the prompt of `inspect` as well. Runs in this process, in a directory like the recording's. Source: golden cli/mistakes.jsonl.
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { test } from 'node:test';
import { nydusImage } from '../../src/cli/nydus-image/program.ts';
import { runProgram } from '../../src/cli/run.ts';
import {
  firstReason,
  goldenPath,
  prepareDirInput,
  prepareTarInput,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from '../support/golden.ts';

interface Line {
  args: string[];
  exit: number | string;
  stdin?: string;
  stdout?: string;
  stderr?: string;
}

const V6 = 'tiny-v6-zstd-blake3';
const V5 = 'tiny-v5-zstd-blake3';
const SUBCOMMANDS = ['create', 'merge', 'check', 'inspect', 'stat'];
/** Of a later version, refused by name with exit 2. */
const LATER = /^(.*-ref|estargz.*|stargz.*|.*tarfs|--encrypt|-E|--attributes|--backend-.*)$/;

/** Where we answer in other words, by what upstream says. */
const OTHER_WORDS: Record<string, string> = {
  'Error: failed to fill whole buffer': 'Error: invalid RAFS superblock', // a file of five bytes
  'Invalid argument (os error 22)': 'inode6', // no such inode
};

/** What a user reads of a failure, without log lines: the message, then its causes without their numbers. */
function report(stderr: string): string[] {
  const at = stderr.search(/^(Error|error): /m);
  if (at < 0) return [];
  const [message = '', causes = ''] = stderr.slice(at).split('\n\nCaused by:\n');
  const deeper = causes.split('\n\n')[0]?.split('\n') ?? [];
  return [
    message.split('\n\n')[0]?.trimEnd() ?? '',
    ...deeper.map((line) => line.replace(/^ *(\d+: )?/, '')),
  ].filter((line) => line !== '');
}

/** The recording keeps this much of an output. */
const RECORDED = 1500;

/** Each line of upstream's report must start a line of ours, in order, the message the first; we may tell more. */
function assertSaysAtLeast(got: string[], want: string[]): void {
  let at = 0;
  for (const line of want) {
    const start = OTHER_WORDS[line] ?? line;
    const found = got.findIndex((text, i) => i >= at && (text === start || text.startsWith(`${start}: `)));
    assert.ok(
      found >= at && (at > 0 || found === 0),
      `${JSON.stringify(line)} is not in ${JSON.stringify(got)}`,
    );
    at = found + 1;
  }
  if (want.length === 0) assert.deepEqual(got, []);
}

interface Outcome {
  status: number;
  stdout: string;
  stderr: string;
}

async function invoke(args: string[], input = ''): Promise<Outcome> {
  const out = { stdout: '', stderr: '' };
  const sink = (name: 'stdout' | 'stderr'): Writable =>
    new Writable({
      write(piece: Buffer, _, done) {
        out[name] += String(piece);
        done();
      },
    });
  const stdin = Readable.from(input === '' ? [] : [Buffer.from(input)]);
  const io = { stdin, stdout: sink('stdout'), stderr: sink('stderr'), env: {} };
  return { status: await runProgram(nydusImage, args, io), ...out };
}

function prepare(dir: string): (args: string[]) => string[] {
  for (const name of ['in', 'tar', 'blobs']) mkdirSync(join(dir, name));
  prepareDirInput('tiny', join(dir, 'in/tiny'));
  prepareTarInput('tiny', join(dir, 'tar/tiny.tar'));
  copyFileSync(goldenPath('cases', V6, 'bootstrap') ?? '', join(dir, 'boot'));
  copyFileSync(goldenPath('cases', V5, 'bootstrap') ?? '', join(dir, 'boot5'));
  writeFileSync(join(dir, 'junk'), Buffer.alloc(20_000, 'junk'));
  writeFileSync(join(dir, 'short'), 'short');
  writeFileSync(join(dir, 'f'), 'f');
  writeFileSync(join(dir, 'bad.json'), '{');
  writeFileSync(
    join(dir, 'ok.json'),
    '{"version":2,"backend":{"type":"localfs","localfs":{"dir":"blobs"}},"cache":{"type":"dummycache"}}',
  );
  return (args) => args.map((arg) => arg.replace('$WORK', dir));
}

const skip = firstReason(
  skipUnlessGolden('cli', 'mistakes.jsonl'),
  skipUnlessGolden('cases', V6, 'bootstrap'),
  skipUnlessGolden('cases', V5, 'bootstrap'),
  requireRoot(),
);

test('nydus-image: golden command lines that reach files', { skip }, async (t) => {
  const dir = tempDir(t);
  const place = prepare(dir);
  const before = process.cwd();
  process.chdir(dir);
  t.after(() => process.chdir(before));
  const lines = readFileSync(goldenPath('cli', 'mistakes.jsonl') ?? '', 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);
  let compared = 0;
  for (const line of lines) {
    const [program, command = ''] = line.args;
    if (program !== 'nydus-image' || !SUBCOMMANDS.includes(command)) continue;
    if (typeof line.exit !== 'number' || line.exit === 2 || line.args.some((arg) => LATER.test(arg)))
      continue;
    if (line.args.includes('--help')) continue;
    compared += 1;
    const shown = JSON.stringify(line.args.slice(1)).slice(0, 150);
    await t.test(
      `${shown}${line.stdin === undefined ? '' : ` < ${JSON.stringify(line.stdin)}`}`,
      async () => {
        const got = await invoke(place(line.args.slice(1)), line.stdin);
        const { status, stdout } = got;
        assert.deepEqual(
          { status, stdout: stdout.slice(0, RECORDED) },
          { status: line.exit, stdout: line.stdout ?? '' },
          got.stderr,
        );
        assertSaysAtLeast(report(got.stderr), report((line.stderr ?? '').replaceAll('$WORK', dir)));
      },
    );
  }
  assert.ok(compared > 90, `only ${compared} compared`);
});
