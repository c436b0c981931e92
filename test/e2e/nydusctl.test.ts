// nydusctl against a running nydusd: every command, its two JSON forms, and what it says when nobody listens.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  firstReason,
  goldenPath,
  requireFuse,
  requirePeer,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from '../support/golden.ts';
import { localConfig, startDaemon, type Daemon } from '../support/daemon.ts';
import { nydusImage, programCommand, runProgramLive, type ProgramResult } from '../support/programs.ts';

const skip = firstReason(requireFuse(), requireRoot());
const CONTENT = Buffer.alloc(70_000, 'content ');

describe('nydusctl', { skip }, () => {
  let work = '';
  let daemon: Daemon;

  const ctl = (...args: string[]): Promise<ProgramResult> =>
    runProgramLive('nydusctl', ['-S', daemon.apisock, ...args], { cwd: work });

  before(async () => {
    work = tempDir();
    for (const dir of ['tree', 'blobs']) mkdirSync(join(work, dir));
    writeFileSync(join(work, 'tree/file'), CONTENT);
    nydusImage(['create', '--blob-dir', 'blobs', '--bootstrap', 'boot', 'tree'], { cwd: work });
    const config = localConfig(join(work, 'blobs'), join(work, 'cache'));
    writeFileSync(join(work, 'config.json'), JSON.stringify(config));
    daemon = await startDaemon({ workDir: join(work, 'd'), bootstrap: join(work, 'boot'), config });
    assert.deepEqual(readFileSync(join(daemon.mountpoint, 'file')), CONTENT);
  });

  after(async () => {
    await daemon[Symbol.asyncDispose]();
  });

  it('nydusctl info: people, one line of JSON, indented JSON', async () => {
    const text = await ctl('info');
    assert.equal(text.status, 0, text.stderr);
    assert.match(
      text.stdout,
      /^\nVersion: {16}"v[^"]+"\nStatus: {17}"RUNNING"\nProfile: {16}"\w+"\nCommit: {17}"\w+"\nInstances:\n\tInstance Mountpoint: {2}\/\n\tType: {2}Rafs\n\tMounted Time: {2}\S+ \d+:\d\d:\d\d\.\d+ \+00:00:00\n\tMode: {2}direct\n\tPrefetch: {2}false\n\tPrefetch Merging Size: {2}\d+\n\n$/,
    );
    for (const args of [
      ['-r', 'info'],
      ['info', '-r'],
    ]) {
      const raw = await ctl(...args);
      assert.match(
        raw.stdout,
        /^\{"backend_collection":\{"\/":\{"backend_type":"Rafs","config":\{"backend".*\}\}\n$/,
      );
      assert.deepEqual(Object.keys(JSON.parse(raw.stdout) as object), [
        'backend_collection',
        'id',
        'state',
        'supervisor',
        'version',
      ]);
    }
    const json = await ctl('info', '--json');
    assert.equal((JSON.parse(json.stdout) as { state: string }).state, 'RUNNING');
    assert.match(json.stdout, /^\{\n {2}"version"/);
  });

  it('nydusctl metrics: the three categories count what was read', async () => {
    const cache = await ctl('metrics', 'cache');
    assert.match(cache.stdout, new RegExp(`\nDirectory: {18}"${join(work, 'cache')}"\n`));
    const backend = await ctl('metrics', 'backend');
    const amount = /^\nBackend Type: {7}"localfs"\nRead Amount: {8}(\d+) Bytes /.exec(backend.stdout)?.[1];
    assert.ok(Number(amount) > 0, backend.stdout);
    const fs = await ctl('metrics', 'fsstats');
    assert.match(fs.stdout, /\nRead Data: 70000Bytes \(0MB\)\n/);
    assert.match((await ctl('-r', 'metrics', 'fsstats')).stdout, /"data_read":70000,/);
    assert.match((await ctl('metrics', 'fsstats', '--id', '/')).stdout, /\nRead Data: 70000Bytes/);
  });

  it('nydusctl metrics: an unknown id is refused in both forms of an error', async () => {
    const plain = await ctl('metrics', 'fsstats', '--id', '/none');
    assert.deepEqual(
      { status: plain.status, stderr: plain.stderr },
      {
        status: 1,
        stderr:
          'Error: Request failed. Object {"code": String("UNDEFINED"), "message": String("GlobalMetrics(Metrics(Stats(NoCounter)))")}\n\nHint: name one with --id: /\n',
      },
    );
    const json = await ctl('metrics', 'fsstats', '--id', '/none', '--json');
    assert.deepEqual(JSON.parse(json.stderr), {
      status: 404,
      error: { code: 'UNDEFINED', message: 'GlobalMetrics(Metrics(Stats(NoCounter)))' },
    });
  });

  it('nydusctl set: changes the level of the log, and reports a word that is none', async () => {
    assert.deepEqual(await ctl('set', 'log-level', 'debug'), {
      status: 0,
      signal: null,
      stdout: '',
      stderr: '',
    });
    const { status, stderr } = await ctl('set', 'log-level', 'nosuch');
    assert.equal(status, 1);
    assert.equal(
      stderr,
      'Error: Request failed. Object {"code": String("UNDEFINED"), "message": String("Configure(ResponsePayloadType)")}\n\nHint: the levels of the log are off, error, warn, info, debug and trace\n',
    );
  });

  it('nydusctl mount, umount: refusals are told in the words of the API', async () => {
    const args = ['-s', join(work, 'boot'), '-c', join(work, 'config.json'), '-t', 'rafs'];
    const twice = await ctl('mount', ...args, '-m', '/');
    assert.equal(
      twice.stderr,
      'Error: Request failed. Object {"code": String("UNDEFINED"), "message": String("Mount(MountFilesystem(Other(\\"object or filesystem already exists\\")))")}\n\nHint: `nydusctl info` lists what is mounted; umount it first\n',
    );
    const missing = await ctl('mount', '-s', 'x', '-c', join(work, 'none'), '-t', 'rafs', '-m', '/x');
    assert.equal(missing.status, 1);
    assert.ok(
      missing.stderr.startsWith(
        `Error: failed to read mount config ${join(work, 'none')}\n\nCaused by:\n    No such file or directory (os error 2)\n`,
      ),
      missing.stderr,
    );
    const none = await ctl('umount', '-m', '/nosuch');
    assert.equal(
      none.stderr,
      'Error: Request failed. Object {"code": String("UNDEFINED"), "message": String("Mount(MountFilesystem(Other(\\"object or filesystem doesn\'t exist\\")))")}\n\nHint: `nydusctl info` lists what is mounted, and where\n',
    );
  });

  it('nydusctl mount, umount: take an image away and bring it back', async () => {
    assert.deepEqual(await ctl('umount', '-m', '/'), { status: 0, signal: null, stdout: '', stderr: '' });
    const args = ['-s', join(work, 'boot'), '-c', join(work, 'config.json'), '-t', 'rafs', '-m', '/'];
    assert.deepEqual(await ctl('mount', ...args), { status: 0, signal: null, stdout: '', stderr: '' });
    assert.deepEqual(readFileSync(join(daemon.mountpoint, 'file')), CONTENT);
  });

  it('nydusctl top: one object a look for programs, a table for people', async () => {
    const json = await ctl('top', '--count', '1', '--json');
    assert.equal(json.status, 0, json.stderr);
    const look = JSON.parse(json.stdout) as {
      state: string;
      mounts: { mountpoint: string; errors: number }[];
    };
    assert.equal(look.state, 'RUNNING');
    assert.deepEqual(
      look.mounts.map(({ mountpoint, errors }) => [mountpoint, errors]),
      [['/', 0]],
    );
    const table = await ctl('top', '-n', '1');
    assert.match(
      table.stdout,
      /^nydusd RUNNING, 1 mount, \d+ operations\/s, 0 B\/s fetched\n\nMOUNTPOINT +OPS\/S /,
    );
  });

  it('nydusctl: without a daemon the error names the socket, exit 1', () => {
    const [file, ...first] = programCommand('nydusctl');
    const { status, stderr } = spawnSync(file, [...first, '-S', '/nonexistent', 'info'], {
      encoding: 'utf8',
    });
    assert.equal(status, 1);
    assert.ok(
      stderr.startsWith(
        'Error: client error (Connect)\n\nCaused by:\n    No such file or directory (os error 2)\n',
      ),
      stderr,
    );
    assert.match(stderr, /\nHint: is nydusd running, and is \/nonexistent what its --apisock says\?\n/);
  });

  it('nydusctl: help of a command needs no socket; without help the socket is missed after the mistakes below it', async () => {
    const [file, ...first] = programCommand('nydusctl');
    const run = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
      spawnSync(file, [...first, ...args], { encoding: 'utf8' });
    for (const args of [
      ['metrics', '--help'],
      ['metrics', '-h'],
      ['help', 'metrics'],
    ]) {
      const { status, stdout } = run(...args);
      assert.deepEqual(
        [status, stdout.split('\n')[0]],
        [0, 'Show counters of the backend, the cache or the filesystem'],
        args.join(' '),
      );
    }
    assert.match(run('metrics', 'nosuch').stderr, /^error: invalid value 'nosuch' for '<category>'/);
    assert.match(
      run('metrics', 'cache').stderr,
      /^error: the following required arguments were not provided:\n {2}--sock <sock>/,
    );
  });

  it('nydusctl: a socket alone is no command, exit 0', async () => {
    assert.deepEqual(await ctl(), { status: 0, signal: null, stdout: '', stderr: '' });
  });
});

interface Mistake {
  args: string[];
  exit: number;
  stdout?: string;
  stderr?: string;
}

/** Numbers, versions, names of blobs and paths are ours; every other character is upstream's. */
function shape(text: string): string {
  return text
    .replace(/"[^"\n]*cli\/[^"\n]*"|"\/[^"\n]*"/g, '"PATH"')
    .replace(/[0-9a-f]{64}/g, 'BLOB')
    .replace(/Mounted Time: .*/, 'Mounted Time:')
    .replace(/"(v|release|debug|unknown|[0-9a-f]{40}|rustc |node )[^"\n]*"/g, '"V"')
    .replace(/\b(?:true|false)\b/g, 'BOOL')
    .replace(/(?<=: )(?:NaN|inf|\d+(?:\.\d+)?)/g, '0')
    .replace(/\d+(?:\.\d+)?/g, '0')
    .replace(/(?<=0) +/g, ' ');
}

describe(
  'nydusctl as golden/cli shows it',
  { skip: firstReason(skip, skipUnlessGolden('cli', 'mistakes.jsonl')) },
  () => {
    it('nydusctl: every command line of the transcript, its output compared but for numbers and paths', async () => {
      const work = tempDir();
      for (const dir of ['tree', 'cli/blobs', 'cli/cache2', 'run/cli'])
        mkdirSync(join(work, dir), { recursive: true });
      writeFileSync(join(work, 'tree/file'), CONTENT);
      nydusImage(['create', '--blob-dir', 'cli/blobs', '--bootstrap', 'cli/boot', 'tree'], { cwd: work });
      const config = localConfig(join(work, 'cli/blobs'), join(work, 'cli/cache2'));
      writeFileSync(join(work, 'cli/ok.json'), JSON.stringify(config));
      await using daemon = await startDaemon({
        workDir: join(work, 'd'),
        bootstrap: join(work, 'cli/boot'),
        config,
      });
      const lines = readFileSync(goldenPath('cli', 'mistakes.jsonl') ?? '', 'utf8')
        .trim()
        .split('\n');
      const all = lines
        .map((line) => JSON.parse(line) as Mistake)
        .filter(({ args }) => args[0] === 'nydusctl');
      for (const { args, exit, stdout = '', stderr = '' } of all) {
        const here = args.map((arg) =>
          arg.replace('$WORK/run/cli/api.sock', daemon.apisock).replace('$WORK', work),
        );
        const name = args.join(' ');
        const ours = await runProgramLive('nydusctl', here.slice(1));
        assert.equal(ours.status, exit, `${name}: ${ours.stderr}`);
        // hints follow what upstream says
        assert.ok(ours.stderr.replaceAll(work, '$WORK').startsWith(stderr), `${name}: ${ours.stderr}`);
        if (args.includes('--version')) continue;
        if (args.includes('-r'))
          assert.deepEqual(keysOf(JSON.parse(ours.stdout)), keysOf(JSON.parse(stdout)), name);
        else assert.equal(shape(ours.stdout), shape(stdout), name);
      }
      assert.equal(all.length, 27);
    });
  },
);

/** Keys that we add to what upstream has. */
const ADDED = /^(?:degraded_blobs|write_errors|dedup_\w+|evicted_\w+|outage\w*|hedge\w*|max_size|driver)$/;

/** The keys of a document, at every depth, in their order. */
function keysOf(value: unknown, path = ''): string[] {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return [];
  return Object.entries(value)
    .filter(([key]) => !ADDED.test(key))
    .flatMap(([key, item]) => [`${path}.${key}`, ...keysOf(item, `${path}.${key}`)]);
}

/** What bash would offer after a command line. */
function completions(line: string): string[] {
  const [file, ...first] = programCommand('nydusctl');
  const script = spawnSync(file, [...first, 'completion', 'bash'], { encoding: 'utf8' });
  assert.equal(script.status, 0, script.stderr);
  const ask = `${script.stdout}
COMP_WORDS=(${line} ''); COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
_nydus_complete ${line.split(' ')[0]}; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { status, stdout, stderr } = spawnSync('bash', ['--norc', '-c', ask], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout.trim().split('\n');
}

describe('nydusctl completion', { skip: requirePeer('bash') }, () => {
  it('nydusctl completion: bash offers subcommands, options and values', () => {
    assert.ok(completions('nydusctl').includes('metrics'));
    assert.ok(completions('nydusctl -S x metrics').includes('fsstats'));
    assert.deepEqual(completions('nydusctl -S x mount --type'), ['rafs', 'passthrough_fs']);
    assert.ok(completions('nydus-image create').includes('--blob-dir'));
    assert.ok(completions('nydusd').includes('--apisock'));
  });

  it('nydusctl completion: the fish script names every subcommand', () => {
    const [file, ...first] = programCommand('nydusctl');
    const { stdout } = spawnSync(file, [...first, 'completion', 'fish'], { encoding: 'utf8' });
    assert.match(stdout, /^complete -c nydusctl -n '__fish_use_subcommand' -f -a info -d /m);
    assert.match(
      stdout,
      /^complete -c nydus-image -n '__fish_seen_subcommand_from create' -l compressor .*-x -a '/m,
    );
  });
});
