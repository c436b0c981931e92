import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { tempDir } from '../../../test/support/temporary.ts';
import { runNydusify } from './run.ts';

interface Ended {
  status: number;
  stdout: string;
  stderr: string;
}

async function run(argv: string[], env: Record<string, string> = {}): Promise<Ended> {
  let stdout = '';
  let stderr = '';
  const stdin = new PassThrough();
  stdin.end();
  const status = await runNydusify(argv, {
    stdin,
    stdout: new Writable({ write: (piece, _encoding, done) => ((stdout += String(piece)), done()) }),
    stderr: new Writable({ write: (piece, _encoding, done) => ((stderr += String(piece)), done()) }),
    env,
  });
  return { status, stdout, stderr };
}

/** Message of the fatal line, which is the only one. */
async function fatal(argv: string[], env?: Record<string, string>): Promise<string> {
  const { status, stderr } = await run(argv, env);
  assert.equal(status, 1, stderr);
  const match = /^time="[^"]+" level=fatal msg=("(?:[^"\\]|\\.)*")[^\n]*\n$/.exec(stderr);
  return JSON.parse(match?.[1] ?? JSON.stringify(`not one fatal line: ${stderr}`)) as string;
}

describe('runNydusify', () => {
  it('runNydusify: mistakes are told in the words of nydusify', async (t) => {
    const source = tempDir(t);
    mkdirSync(join(source, 'blobs'));
    const base = ['--source', 'a', '--source-archive', source];
    const both = [...base, '--target', 'b'];
    const digested = `a@sha256:${'0'.repeat(64)}`;
    const cases: [string[], string][] = [
      [[], 'Required flag "source" not set'],
      [['--source', 'a', '--source-archive', '/nowhere'], 'source archive not accessible: /nowhere'],
      [[...base, '--target-archive', '/nowhere/x'], 'target archive directory not accessible: /nowhere'],
      [base, '--target or --target-suffix is required'],
      [[...both, '--target-suffix', '-n'], '--target conflicts with --target-suffix'],
      [['--source', digested, '--target-suffix', '-n'], `unsupported digested image reference: ${digested}`],
      [[...both, '--backend-type', 'x'], '--backend-type should be one of [oss s3 localfs]'],
      [
        [...both, '--backend-type', 'oss'],
        "backend configuration is empty, please specify option '--backend-config'",
      ],
      [
        [...both, '--build-cache', 'c', '--build-cache-tag', 'd'],
        '--build-cache conflicts with --build-cache-tag',
      ],
      [
        [...both, '--build-cache', 'c', '--build-cache-max-records', '0'],
        '--build-cache-max-records should be greater than 0',
      ],
      [
        [...both, '--build-cache', 'c', '--build-cache-max-records', '201'],
        '--build-cache-max-records should not be greater than 200',
      ],
      [[...both, '--fs-version', '4'], '--fs-version should be one of [5 6]'],
      [
        [...both, '--prefetch-dir', '/a', '--prefetch-patterns'],
        '--prefetch-dir conflicts with --prefetch-patterns',
      ],
      [[...both, '--chunk-dict', 'x'], 'parse chunk dict arguments: invalid args'],
      [
        [...both, '--chunk-dict', 'x:local:y'],
        'parse chunk dict arguments: invalid chunk dict format x, should be [bootstrap]',
      ],
      [
        [...both, '--chunk-dict', 'bootstrap:x:y'],
        'parse chunk dict arguments: invalid chunk dict source x, should be [registry local]',
      ],
      [[...both, '--nonsense'], 'flag provided but not defined: -nonsense'],
      [[...both, '--oci=perhaps'], 'invalid boolean value "perhaps" for -oci: parse error'],
      [[...both, '--platform'], 'flag needs an argument: -platform'],
      [
        [...both, '--chunk-size=1', '--fs-chunk-size=1'],
        'Cannot use two forms of the same flag: chunk-size fs-chunk-size',
      ],
      [[...both, 'more'], 'unexpected argument "more"'],
      [[...both, '--push-retry-delay', 'soon'], 'parse push retry delay: time: invalid duration "soon"'],
      [[...both, '--fs-chunk-size', '0x1001'], 'invalid chunk size: 4097'],
      [[...both, '--compressor', 'gzip'], '--compressor should be one of [none lz4_block zstd]'],
    ];
    for (const [flags, message] of cases)
      assert.equal(await fatal(['convert', ...flags]), message, flags.join(' '));
  });

  it('runNydusify: what this version does not serve is refused by name, wherever it was said', async (t) => {
    const both = ['convert', '--source', 'a', '--source-archive', tempDir(t), '--target', 'b'];
    const cases: [string[], string][] = [
      [['--oci-ref'], 'oci-ref'],
      [['--source-backend-type', 'modelfile'], 'source-backend-type'],
    ];
    for (const [flags, name] of cases) {
      assert.equal(await fatal([...both, ...flags]), `--${name} is not supported yet`);
    }
    assert.equal(await fatal(both, { OCI_REF: 'true' }), '--oci-ref is not supported yet');
    assert.equal(await fatal(['commit']), 'the command commit is not supported yet');
    assert.equal(await fatal(['frobnicate']), 'unknown command "frobnicate"');
  });

  it('runNydusify: the command line wins over the environment, the environment over defaults', async (t) => {
    const both = ['convert', '-source=a', '-source-archive', tempDir(t), '--target', 'b'];
    assert.equal(await fatal(both, { FS_VERSION: '7' }), '--fs-version should be one of [5 6]');
    const found = await fatal([...both, '--fs-version', '6'], { FS_VERSION: '7', OCI_REF: '' });
    assert.match(found, /holds neither an OCI layout nor a docker archive$/);
    assert.match(
      await fatal(both, { OCI: 'maybe' }),
      /^could not parse "maybe" as bool value from environment variable "OCI"/,
    );
  });

  it('runNydusify: version and help go to standard output', async () => {
    const version = await run(['--version']);
    assert.equal(version.status, 0);
    assert.match(
      version.stdout,
      /^\nVersion\t: v[^\n]+\nRevision\t: [^\n]+\nGo version\t: node v[^\n]+\nBuild time\t: [^\n]+\n$/,
    );
    const help = await run(['convert', '--help']);
    assert.equal(help.status, 0);
    assert.match(help.stdout, /--target-archive <PATH>/);
    assert.match(help.stdout, /\[\$SOURCE_ARCHIVE\]/);
    assert.doesNotMatch(help.stdout, /--oci-ref|--docker-v2-format/);
    const wrong = await run(['convert', '--nonsense']);
    assert.match(wrong.stdout, /^Incorrect Usage: flag provided but not defined: -nonsense\n\n/);
  });

  it('runNydusify: metrics are written also when the conversion fails', async (t) => {
    const dir = tempDir(t);
    writeFileSync(join(dir, 'manifest.json'), '[]');
    const file = join(tempDir(t), 'metrics.json');
    const work = join(tempDir(t), 'w');
    const flags = [
      '--source',
      'a',
      '--source-archive',
      dir,
      '--target',
      'b',
      '--target-archive',
      join(work, '..', 'o.tar'),
    ];
    const failed = await fatal(['convert', ...flags, '--output-json', file, '--work-dir', work]);
    assert.equal(failed, `${dir} holds 0 images, none is called docker.io/library/a:latest`);
    const { readFileSync, existsSync } = await import('node:fs');
    assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), {
      SourceImageSize: 0,
      TargetImageSize: 0,
      SourcePullElapsed: 0,
      ConversionElapsed: 0,
      TargetPushElapsed: 0,
    });
    assert.equal(existsSync(work), false);
  });
});
