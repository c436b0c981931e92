// `nydus-image chunkdict generate`: upstream's database rows, and a dictionary that builds can use.
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { goldenPath, tempDir } from '../support/golden.ts';
import { nydusImage, runProgram } from '../support/programs.ts';
import { noise } from '../support/sample-tree.ts';

for (const version of ['5', '6']) {
  const golden = goldenPath('cases', `chunkdict-generate-v${version}`);
  test(
    `nydus-image chunkdict generate: golden database (v${version})`,
    { skip: golden === undefined },
    (t) => {
      const dir = tempDir(t);
      for (const [tag, file] of [
        ['v1', 'app1.boot'],
        ['v2', 'app2.boot'],
      ] as const) {
        mkdirSync(join(dir, `img:${tag}`));
        copyFileSync(join(golden as string, file), join(dir, `img:${tag}`, file));
      }
      const sources = ['img:v1/app1.boot', 'img:v2/app2.boot'];
      const args = [
        'chunkdict',
        'generate',
        '--database',
        `sqlite://${dir}/cd.db`,
        '-B',
        'dict.boot',
        ...sources,
      ];
      // the second run says the same again, not more
      for (let i = 0; i < 2; i++) nydusImage(args, { cwd: dir });
      const database = new DatabaseSync(join(dir, 'cd.db'));
      t.after(() => database.close());
      const want = JSON.parse(readFileSync(join(golden as string, 'database.json'), 'utf8')) as {
        chunk: object[];
        blob: object[];
      };
      const rows = (table: string): object[] =>
        database
          .prepare(`SELECT * FROM ${table} ORDER BY id`)
          .all()
          .map((row) => ({ ...row }));
      assert.deepEqual(rows('blob'), want.blob);
      assert.deepEqual(
        rows('chunk').map((row) => ({ ...row, id: 0 })),
        want.chunk.map((row) => ({ ...row, id: 0 })),
      );
      assert.match(nydusImage(['check', 'dict.boot'], { cwd: dir }).stdout, /is-chunkdict-generated/);
    },
  );

  test(`nydus-image chunkdict generate: a build stores nothing that the dictionary has (v${version})`, (t) => {
    const cwd = tempDir(t);
    const shared = noise('shared', 3_000_000);
    mkdirSync(join(cwd, 'blobs'));
    const build = (name: string, boot: string, more: string[] = []): string[] => {
      mkdirSync(join(cwd, `tree-${name}`));
      writeFileSync(join(cwd, `tree-${name}/shared`), shared);
      writeFileSync(join(cwd, `tree-${name}/own`), noise(name, 100_000));
      const args = ['create', '-v', version, '-B', boot, '-D', 'blobs', '-J', 'out.json', ...more];
      nydusImage([...args, `tree-${name}`], { cwd });
      return (JSON.parse(readFileSync(join(cwd, 'out.json'), 'utf8')) as { blobs: string[] }).blobs;
    };
    for (const name of ['app:1', 'app:2', 'other:1']) mkdirSync(join(cwd, name));
    const [first] = build('1', 'app:1/boot');
    build('2', 'app:2/boot');
    build('3', 'other:1/boot');
    const sources = ['app:1/boot', 'app:2/boot', 'other:1/boot'];
    const args = ['chunkdict', 'generate', '--database', 'sqlite://:memory:', '-B', 'dict', '-J', 'd.json'];
    const made = nydusImage([...args, '-v', ...sources], { cwd });
    assert.equal(made.stdout.split('\n').filter((line) => line.startsWith('\t chunk: ')).length, 3);
    const result = JSON.parse(readFileSync(join(cwd, 'd.json'), 'utf8')) as {
      blobs: string[];
      bootstrap: string;
    };
    assert.deepEqual([result.blobs, result.bootstrap], [[first], 'dict']);
    const used = build('4', 'boot4', ['--chunk-dict', 'bootstrap=dict']);
    assert.equal(used.length, 2);
    assert.ok(used.includes(first as string));
    const own = used.find((id) => id !== first) as string;
    assert.ok(readFileSync(join(cwd, 'blobs', own)).length < 200_000);
    nydusImage(['unpack', 'boot4', '-D', 'blobs', '--output', 'out.tar'], { cwd });
    assert.ok(readFileSync(join(cwd, 'out.tar')).includes(shared));
    nydusImage(['unpack', 'dict', '-D', 'blobs', '--output', 'dict.tar'], { cwd });
    assert.ok(readFileSync(join(cwd, 'dict.tar')).includes(shared), 'the dictionary itself can be read');
  });
}

test("nydus-image chunkdict generate: mistakes, in upstream's words", (t) => {
  const cwd = tempDir(t);
  mkdirSync(join(cwd, 'tree'));
  for (const name of ['a:1', 'blobs', 'plain']) mkdirSync(join(cwd, name));
  writeFileSync(join(cwd, 'tree/f'), 'f');
  for (const [version, boot] of [
    ['5', 'a:1/boot5'],
    ['6', 'a:1/boot'],
    ['6', 'plain/boot'],
  ] as const)
    nydusImage(['create', '-v', version, '-B', boot, '-D', 'blobs', 'tree'], { cwd });
  const fails = (args: string[], want: string): string => {
    const { status, stderr, stdout } = runProgram('nydus-image', ['chunkdict', 'generate', ...args], { cwd });
    assert.equal(status, 1, stderr);
    assert.ok(stderr.includes(`Error: ${want}\n`), stderr);
    return stdout;
  };
  fails(['-B', 'o', 'plain/boot'], 'Invalid Bootstrap directory name');
  fails(['--database', '/x', '-B', 'o', 'a:1/boot'], 'Invalid database URL: /x');
  fails(['--database', 'sqlite://x', '-B', 'o', 'a:1/boot'], 'Invalid database URL: sqlite://x');
  fails(
    ['--database', 'mysql://x', '-B', 'o', 'a:1/boot'],
    "Unsupported database type: mysql://x, please use a valid database URI, such as 'sqlite:///path/to/chunkdict.db'.",
  );
  const shown = fails(
    ['--database', 'sqlite://:memory:', '-B', 'o', 'a:1/boot', 'a:1/boot5'],
    'Bootstrap versions are inconsistent, cannot use chunkdict.',
  );
  assert.equal(
    shown,
    'Bootstrap path "a:1/boot" has version V6\nBootstrap path "a:1/boot5" has version V5\n',
  );
  const alone = runProgram('nydus-image', ['chunkdict'], { cwd });
  assert.deepEqual([alone.status, alone.stdout], [0, 'Usage: [OPTIONS] [COMMAND]\n']);
});
