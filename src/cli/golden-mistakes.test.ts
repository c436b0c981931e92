// Every command line upstream was seen to answer: same exit status and text, except the differences listed here.
// Only what the parser decides is compared; what needs files is in test/e2e. Source: golden cli/mistakes.jsonl.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { PassThrough, Writable } from 'node:stream';
import { test } from 'node:test';
import { goldenPath, skipUnlessGolden } from '../../test/support/golden.ts';
import type { Command } from './command.ts';
import { nydusImage } from './nydus-image/program.ts';
import { nydusctl } from './nydusctl/program.ts';
import { nydusd } from './nydusd.ts';
import { runProgram } from './run.ts';

interface Mistake {
  args: string[];
  exit: number | string;
  stderr?: string;
}

const PROGRAMS: Record<string, Command> = { 'nydus-image': nydusImage, nydusctl, nydusd };
const LATER = ['compact', 'optimize', 'export', 'singleton', 'virtiofs', 'uffd', 'nbd'];
const LATER_TYPES = [
  'targz-ref',
  'estargz-ref',
  'estargz-rafs',
  'estargztoc-ref',
  'tar-tarfs',
  'stargz_index',
];

/** Why our answer differs, or undefined when it must be the same. */
function difference({ args, stderr = '' }: Mistake): string | undefined {
  if (LATER.includes(args[1] ?? '')) return 'subcommand of a later version, refused by name';
  if (args.some((arg) => LATER_TYPES.includes(arg)))
    return 'conversion type of a later version, refused by name';
  if (stderr.includes('--external-blob <external-blob>'))
    return 'quirk that the spec says not to reproduce (2.1)';
  if (stderr.includes('estargz-ref, estargztoc-ref')) return 'the list of types names those we have';
  return undefined;
}

async function invoke(program: Command, argv: string[]): Promise<{ status: number; stderr: string }> {
  let stderr = '';
  const sink = (take: (text: string) => void): Writable =>
    new Writable({
      write: (chunk: Buffer, _, done) => {
        take(String(chunk));
        done();
      },
    });
  const stdin = new PassThrough();
  stdin.end();
  const status = await runProgram(program, argv, {
    stdin,
    stdout: sink(() => {}),
    stderr: sink((text) => (stderr += text)),
    env: {},
  });
  return { status, stderr };
}

test(
  'runProgram: answers mistakes on the command line as upstream does',
  { skip: skipUnlessGolden('cli', 'mistakes.jsonl') },
  async (t) => {
    const text = readFileSync(goldenPath('cli', 'mistakes.jsonl') as string, 'utf8');
    const mistakes = text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Mistake);
    let compared = 0;
    for (const mistake of mistakes) {
      const program = PROGRAMS[mistake.args[0] as string];
      // exit status 2 comes from the parser alone and touches no file
      if (program === undefined || mistake.exit !== 2 || difference(mistake) !== undefined) continue;
      compared += 1;
      await t.test(mistake.args.join(' '), async () => {
        const { status, stderr } = await invoke(program, mistake.args.slice(1));
        assert.deepEqual({ status, stderr }, { status: 2, stderr: mistake.stderr });
      });
    }
    assert.ok(compared > 40, `only ${compared} compared`);
  },
);

test('runProgram: what a later version brings is refused by name with exit 2', async () => {
  for (const name of ['compact', 'optimize', 'export']) {
    const { status, stderr } = await invoke(nydusImage, [name, 'x']);
    assert.equal(status, 2);
    assert.match(stderr, new RegExp(`^error: the subcommand '${name}' is not supported by this version\n`));
  }
  for (const type of LATER_TYPES) {
    const { status, stderr } = await invoke(nydusImage, ['create', '-t', type, '-D', '.', '-B', 'b', 'x']);
    assert.equal(status, 2);
    assert.match(stderr, new RegExp(`^error: '--type ${type}' is not supported by this version\n`));
  }
  const encrypt = await invoke(nydusImage, ['create', '-E', '-D', '.', '-B', 'b', 'x']);
  assert.equal(encrypt.status, 2);
  assert.match(encrypt.stderr, /^error: the argument '--encrypt' is not supported by this version\n/);
});
