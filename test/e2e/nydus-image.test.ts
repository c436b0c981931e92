// `nydus-image` as users run it: create, check, inspect, stat, merge on real trees; golden texts of check and inspect.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { existsSync } from 'node:fs';
import { goldenCases, goldenPath, skipUnlessGolden, tempDir } from '../support/golden.ts';
import { nydusImage, runProgram } from '../support/programs.ts';

/** Kinds of image that this version need not handle (issue 3, section 7). */
const EXEMPT =
  /^(targz-ref|tar-ref|tarfs|estargz|external|.*-encrypt|export|unpack|compact|optimize|chunkdict-generate)/;

function makeTree(dir: string): void {
  mkdirSync(join(dir, 'sub'), { recursive: true });
  writeFileSync(join(dir, 'a.txt'), 'hello\n'.repeat(2000));
  writeFileSync(join(dir, 'sub/b'), Buffer.alloc(5000, 7));
  writeFileSync(join(dir, 'empty'), '');
  symlinkSync('a.txt', join(dir, 'link'));
}

for (const version of ['5', '6'] as const) {
  test(`nydus-image: create, check, inspect and merge agree (v${version})`, (t) => {
    const dir = tempDir(t);
    makeTree(join(dir, 'tree'));
    mkdirSync(join(dir, 'blobs'));
    const cwd = dir;
    const built = nydusImage(
      ['create', '-v', version, '-B', 'boot', '-D', 'blobs', '-J', 'result.json', 'tree'],
      { cwd },
    );
    assert.match(
      built.stderr,
      /INFO successfully built RAFS filesystem: \nmeta blob path: boot\ndata blob size: 0x/,
    );
    const result = JSON.parse(readFileSync(join(dir, 'result.json'), 'utf8')) as {
      blobs: string[];
      fs_version: string;
    };
    assert.deepEqual(readdirSync(join(dir, 'blobs')), result.blobs);
    assert.equal(result.fs_version, version);
    const checked = nydusImage(['check', 'boot'], { cwd });
    assert.match(
      checked.stdout,
      new RegExp(`^RAFS filesystem metadata is valid.*\n\t 0: ${result.blobs[0]}, `),
    );
    const blobs = JSON.parse(nydusImage(['inspect', '-R blobs', 'boot'], { cwd }).stdout) as {
      blob_id: string;
    }[];
    assert.deepEqual(
      blobs.map((b) => b.blob_id),
      result.blobs,
    );
    const listed = nydusImage(['inspect', 'boot', '-R', 'ls'], { cwd }).stdout;
    assert.deepEqual(listed.match(/"[^"]*"/g), ['"a.txt"', '"empty"', '"link"', '"sub"']);
    const stat = nydusImage(['stat', '-B', 'boot'], { cwd }).stdout;
    assert.match(stat, /\nFiles: +3\nSymlinks: +1\nChunks: +2\nFile Size: +17000\n/);
    nydusImage(['merge', '-B', 'merged', '--original-blob-ids', result.blobs.join(), 'boot'], { cwd });
    assert.match(nydusImage(['check', 'merged'], { cwd }).stdout, new RegExp(result.blobs[0] as string));
  });
}

test('nydus-image create: a failure names the path, the cause and exits 1', (t) => {
  const cwd = tempDir(t);
  const bad = runProgram('nydus-image', ['create', '-B', 'b', '-D', 'nodir', '.'], { cwd });
  assert.equal(bad.status, 1);
  assert.match(bad.stderr, /^Error: directory to store blobs does not exist\n/);
  const absent = runProgram('nydus-image', ['create', '-t', 'tar-rafs', '-B', 'b', '-D', '.', 'none.tar'], {
    cwd,
  });
  assert.equal(absent.status, 1);
  assert.match(
    absent.stderr,
    /^Error: failed to access path "none.tar"\n\nCaused by:\n {4}No such file or directory \(os error 2\)\n/,
  );
});

test('nydus-image create -h: the words that callers search for', () => {
  const { stdout } = nydusImage(['create', '-h']);
  for (const word of ['--type', 'tar-rafs', '--batch-size']) assert.ok(stdout.includes(word), word);
  for (const word of ['--encrypt', 'estargz', '-ref', 'tarfs', '--attributes'])
    assert.ok(!stdout.includes(word), word);
});

test('nydus-image check, inspect: golden texts', { skip: skipUnlessGolden('cases') }, async (t) => {
  for (const name of goldenCases()) {
    if (EXEMPT.test(name)) continue;
    const cwd = goldenPath('cases', name) as string;
    const commands = [
      ...readFileSync(join(cwd, 'command.txt'), 'utf8').matchAll(/nydus-image (check .* -v)$/gm),
    ];
    const plain = join(cwd, 'check-v.txt');
    const packed = `${plain}.gz`;
    const args = commands.at(-1)?.[1]?.split(' ');
    if (args === undefined || (!existsSync(plain) && !existsSync(packed))) continue;
    if (!existsSync(join(cwd, args.find((a) => a.includes('boot') || a.startsWith('blobs/')) ?? '')))
      continue;
    await t.test(name, () => {
      const want = existsSync(plain)
        ? readFileSync(plain, 'utf8')
        : gunzipSync(readFileSync(packed)).toString('utf8');
      assert.equal(nydusImage(args, { cwd }).stdout, want);
      const path = args[1] === '-B' ? (args[2] as string) : (args[1] as string);
      const inspected = join(cwd, 'inspect.json');
      if (!existsSync(inspected)) return;
      const expected = JSON.parse(readFileSync(inspected, 'utf8')) as Record<string, unknown>;
      for (const request of ['blobs', 'prefetch']) {
        const { stdout } = nydusImage(['inspect', path, '-R', request], { cwd });
        assert.equal(stdout, JSON.stringify(expected[request]), request);
      }
    });
  }
});
