// The grammar, form by form. Source: nydusd.md 1.2, nydus-image 1.1.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { command, program } from './command.ts';
import { CommandLineError } from './parse-level.ts';
import { parseArgs } from './parse.ts';
import { jaro } from './suggest.ts';

const sub = command({
  name: 'prog sub',
  summary: 'A subcommand',
  options: {
    file: { type: 'string', short: 'f', aliases: ['path'], help: 'a file' },
    kind: { type: 'string', default: 'a', values: ['a', 'b'], help: 'a kind' },
    many: { type: 'string', short: 'm', repeatable: true, help: 'a list' },
    quick: { type: 'flag', short: 'q', help: 'a flag' },
    slow: { type: 'flag', short: 's', conflicts: ['quick'], help: 'another flag' },
  },
  positionals: { FIRST: { help: 'one' }, REST: { repeatable: true, help: 'more' } },
  examples: [],
  run: () => 0,
});
const prog = program({
  name: 'prog',
  summary: 'A program',
  options: { level: { type: 'string', short: 'l', global: true, default: 'info', help: 'a level' } },
  subcommands: { sub: { summary: 'A subcommand', load: async () => sub } },
  examples: [],
  run: () => 0,
});

async function values(...argv: string[]): Promise<Record<string, unknown>> {
  const parsed = await parseArgs(prog, ['sub', ...argv]);
  assert.equal(parsed.kind, 'run');
  return parsed.kind === 'run' ? parsed.values : {};
}

const FORMS: [string[], Record<string, unknown>][] = [
  [['--file', 'x'], { file: 'x' }],
  [['--file=x'], { file: 'x' }],
  [['--file='], { file: '' }],
  [['--path', 'x'], { file: 'x' }],
  [['-f', 'x'], { file: 'x' }],
  [['-fx'], { file: 'x' }],
  [['-f=x'], { file: 'x' }],
  [['-f x'], { file: ' x' }],
  [['-f', '-'], { file: '-' }],
  [['-qfx'], { quick: true, file: 'x' }],
  [['-m', '1', '-m2', '--many=3'], { many: ['1', '2', '3'] }],
  [['a', '-q', 'b', 'c'], { FIRST: 'a', REST: ['b', 'c'], quick: true }],
  [['--', '--file', '-q'], { FIRST: '--file', REST: ['-q'], quick: false }],
  [['--level', 'debug'], { level: 'debug' }],
  [[], { file: undefined, kind: 'a', many: [], quick: false, FIRST: undefined, REST: [], level: 'info' }],
];

test('parseArgs: accepts every form of option and argument', async () => {
  for (const [argv, expected] of FORMS) {
    const got = await values(...argv);
    for (const [key, value] of Object.entries(expected))
      assert.deepEqual(got[key], value, `${argv.join(' ')}: ${key}`);
  }
});

test('parseArgs: a global option before the subcommand counts, one after it wins', async () => {
  const before = await parseArgs(prog, ['-l', 'warn', 'sub']);
  const both = await parseArgs(prog, ['-l', 'warn', 'sub', '-l', 'debug']);
  assert.equal(before.kind === 'run' && before.values['level'], 'warn');
  assert.equal(both.kind === 'run' && both.values['level'], 'debug');
});

const MISTAKES: [string[], string][] = [
  [
    ['-f'],
    "a value is required for '--file <file>' but none was supplied\n\nFor more information, try '--help'.\n",
  ],
  [
    ['-f', 'x', '--file=y'],
    "the argument '--file <file>' cannot be used multiple times\n\nUsage: prog sub [OPTIONS] [FIRST] [REST]...\n\nFor more information, try '--help'.\n",
  ],
  [
    ['--quick=1'],
    "unexpected value '1' for '--quick' found; no more were expected\n\nUsage: prog sub [OPTIONS] [FIRST] [REST]...\n\nFor more information, try '--help'.\n",
  ],
  [
    ['--kind', 'c'],
    "invalid value 'c' for '--kind <kind>'\n  [possible values: a, b]\n\nFor more information, try '--help'.\n",
  ],
  [
    ['--fil', 'x'],
    "unexpected argument '--fil' found\n\n  tip: a similar argument exists: '--file'\n\nUsage: prog sub --file <file> [FIRST] [REST]...\n\nFor more information, try '--help'.\n",
  ],
  [
    ['-s', '-q'],
    "the argument '--slow' cannot be used with '--quick'\n\nUsage: prog sub --slow [FIRST] [REST]...\n\nFor more information, try '--help'.\n",
  ],
];

test('parseArgs: words mistakes as clap does', async () => {
  for (const [argv, text] of MISTAKES) {
    await assert.rejects(values(...argv), (error) => {
      assert.ok(error instanceof CommandLineError);
      assert.equal(error.text, text);
      assert.equal(error.exitCode, 2);
      return true;
    });
  }
});

test('parseArgs: a subcommand misspelt gets a tip', async () => {
  await assert.rejects(parseArgs(prog, ['subb']), (error) => {
    assert.ok(error instanceof CommandLineError);
    assert.match(
      error.text,
      /^unrecognized subcommand 'subb'\n\n {2}tip: a similar subcommand exists: 'sub'\n/,
    );
    return true;
  });
});

test('parseArgs: help and version are asked for at any level', async () => {
  assert.equal((await parseArgs(prog, ['-V'])).kind, 'version');
  for (const argv of [['-h'], ['sub', '--help'], ['help', 'sub']]) {
    const parsed = await parseArgs(prog, argv);
    assert.equal(parsed.kind, 'help');
  }
});

test('jaro: agrees with published values', () => {
  assert.equal(jaro('MARTHA', 'MARHTA').toFixed(4), '0.9444');
  assert.equal(jaro('DIXON', 'DICKSONX').toFixed(4), '0.7667');
  assert.equal(jaro('', 'x'), 0);
});
