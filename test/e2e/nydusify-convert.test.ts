// nydusify convert as a process: an OCI image in, a nydus image out, and what a mount of it shows.
import assert from 'node:assert/strict';
import { spawn, spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { localConfig, startDaemon } from '../support/daemon.ts';
import { firstReason, repoRoot, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { nydusImage } from '../support/programs.ts';
import { noise, text } from '../support/sample-tree.ts';
import { compareTrees } from '../support/tree-manifest.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';
const BLOB = 'application/vnd.oci.image.layer.nydus.blob.v1';
const PREFIX = 'containerd.io/snapshot/nydus-';

interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
  platform?: { os: string; architecture: string };
}

interface Manifest {
  mediaType: string;
  config: Descriptor;
  layers: Descriptor[];
  annotations: Record<string, string>;
  subject?: Descriptor;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function nydusify(args: string[], env: NodeJS.ProcessEnv = {}): SpawnSyncReturns<string> {
  const [file, ...first] = command();
  return spawnSync(file as string, [...first, ...args], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], ...env },
  });
}

function command(): string[] {
  const built = join(process.env['NYDUS_BIN'] ?? '', 'nydusify');
  if ((process.env['NYDUS_BIN'] ?? '') !== '' && existsSync(built)) return [built];
  return [process.execPath, join(repoRoot, 'src/bin/nydusify.ts')];
}

function converted(args: string[]): SpawnSyncReturns<string> {
  const result = nydusify(['convert', ...args]);
  assert.equal(result.status, 0, result.stderr);
  return result;
}

function fatalOf(result: SpawnSyncReturns<string>): string {
  assert.equal(result.status, 1, result.stderr);
  const line = result.stderr.split('\n').find((l) => l.includes('level=fatal')) ?? '';
  return JSON.parse(/msg=("(?:[^"\\]|\\.)*")/.exec(line)?.[1] ?? '""') as string;
}

/** Three trees: the second deletes and replaces, the third hides a directory. */
function makeTrees(dir: string): string[] {
  const put = (name: string, data: Uint8Array | string): void => {
    mkdirSync(join(dir, name, '..'), { recursive: true });
    writeFileSync(join(dir, name), data);
  };
  put('1/bin/tool', noise('tool', 300_000));
  put('1/etc/app.conf', 'first\n');
  put('1/etc/gone.conf', 'deleted by the second layer\n');
  put('1/opt/old/file', 'hidden by the third layer\n');
  put('1/opt/old/deep/er', text('er', 5000));
  put('1/usr/share/big', text('big', 3_000_000));
  put('1/empty', '');
  symlinkSync('../bin/tool', join(dir, '1/usr/tool'));
  put('2/etc/app.conf', 'second\n');
  put('2/etc/.wh.gone.conf', '');
  put('2/srv/data', noise('data', 70_000));
  put('3/opt/old/.wh..wh..opq', '');
  put('3/opt/old/new', 'the only one left\n');
  return ['1', '2', '3'].map((name) => join(dir, name));
}

function tarOf(tree: string): Buffer {
  const result = spawnSync(
    'tar',
    ['--format=pax', '--numeric-owner', '--sort=name', '--mtime=@1600000000', '-cf', '-', '-C', tree, '.'],
    { maxBuffer: 1 << 28 },
  );
  assert.equal(result.status, 0, String(result.stderr));
  return result.stdout;
}

/** What a container sees: layers extracted by GNU tar, whiteouts applied by the rules of the OCI image spec. */
function extractAll(trees: string[], tars: Buffer[], into: string): void {
  mkdirSync(into);
  trees.forEach((tree, i) => {
    const names = readdirSync(tree, { recursive: true, encoding: 'utf8' });
    for (const name of names) {
      const base = name.slice(name.lastIndexOf('/') + 1);
      const folder = join(into, name, '..');
      if (base === '.wh..wh..opq') {
        for (const child of readdirSync(folder)) rmSync(join(folder, child), { recursive: true });
      } else if (base.startsWith('.wh.')) {
        rmSync(join(folder, base.slice('.wh.'.length)), { recursive: true });
      }
    }
    const tar = spawnSync('tar', ['-xpf', '-', '-C', into, '--exclude=.wh.*', '--numeric-owner'], {
      input: tars[i] as Buffer,
    });
    assert.equal(tar.status, 0, String(tar.stderr));
  });
}

class Layout {
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
    mkdirSync(join(dir, 'blobs/sha256'), { recursive: true });
    writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  }

  put(bytes: Buffer, mediaType: string): Descriptor {
    writeFileSync(join(this.dir, 'blobs/sha256', sha256(bytes)), bytes);
    return { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  }

  json(value: object, mediaType: string): Descriptor {
    return this.put(Buffer.from(JSON.stringify(value)), mediaType);
  }

  image(tars: Buffer[], architecture: string, layers: Descriptor[]): Descriptor {
    const config = this.json(
      {
        created: '2024-01-01T00:00:00Z',
        architecture,
        os: 'linux',
        config: { Env: ['A=b'], Cmd: ['/bin/tool'], Labels: { x: 'y' } },
        rootfs: { type: 'layers', diff_ids: tars.map((tar) => `sha256:${sha256(tar)}`) },
        history: [{ created_by: 'one' }, { created_by: 'none', empty_layer: true }],
      },
      OCI_CONFIG,
    );
    return this.json({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }, OCI_MANIFEST);
  }

  index(manifests: object[]): void {
    writeFileSync(join(this.dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
  }

  read(descriptor: Descriptor): Buffer {
    return readBlob(this.dir, descriptor);
  }
}

function readBlob(layout: string, { digest, size }: Descriptor): Buffer {
  const bytes = readFileSync(join(layout, 'blobs/sha256', digest.slice(7)));
  assert.equal(`sha256:${sha256(bytes)}`, digest);
  assert.equal(bytes.length, size);
  return bytes;
}

function readJson<T>(layout: string, descriptor: Descriptor): T {
  return JSON.parse(readBlob(layout, descriptor).toString()) as T;
}

function rootOf(layout: string): Descriptor {
  const { manifests } = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
    manifests: Descriptor[];
  };
  return manifests.at(-1) as Descriptor;
}

/** All files of a directory with their digests. */
function contents(dir: string): Record<string, string> {
  const files = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(
    files
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((path) => [path.slice(dir.length), sha256(readFileSync(path))]),
  );
}

interface Sample {
  work: string;
  trees: string[];
  tars: Buffer[];
  layout: Layout;
  manifest: Descriptor;
  args: (target: string, more?: string[]) => string[];
}

function makeSample(work: string): Sample {
  const trees = makeTrees(join(work, 'trees'));
  const tars = trees.map(tarOf);
  const layout = new Layout(join(work, 'source'));
  const [first, second, third] = tars as [Buffer, Buffer, Buffer];
  const manifest = layout.image(tars, 'amd64', [
    layout.put(gzipSync(first), `${OCI_LAYER}+gzip`),
    layout.put(zstdCompressSync(second), `${OCI_LAYER}+zstd`),
    layout.put(third, OCI_LAYER),
  ]);
  layout.index([{ ...manifest, annotations: { 'org.opencontainers.image.ref.name': '1.0' } }]);
  const args = (target: string, more: string[] = []): string[] => [
    ...['--source', 'example.org/app:1.0', '--source-archive', layout.dir, '--platform', 'linux/amd64'],
    ...['--target', 'example.org/app:1.0-nydus', '--target-archive', target, '--work-dir', join(work, 'tmp'), ...more],
  ];
  return { work, trees, tars, layout, manifest, args };
}

/** The bootstrap out of the last layer, unpacked by GNU tar. */
function bootstrapOf(layout: string, manifest: Manifest, into: string): string {
  mkdirSync(into);
  const tar = gunzipSync(readBlob(layout, manifest.layers.at(-1) as Descriptor));
  const result = spawnSync('tar', ['-xpf', '-', '-C', into], { input: tar });
  assert.equal(result.status, 0, String(result.stderr));
  return join(into, 'image/image.boot');
}

describe('nydusify convert', { skip }, () => {
  it('nydusify convert: writes manifest, config and annotations as the contract says', (t) => {
    const { work, layout, manifest: source, args, tars } = makeSample(tempDir(t));
    const target = join(work, 'target/');
    const metrics = join(work, 'metrics.json');
    converted(args(target, ['--output-json', metrics, '--with-referrer']));
    const root = rootOf(target);
    assert.deepEqual(root.annotations, {
      'io.containerd.image.name': 'example.org/app:1.0-nydus',
      'org.opencontainers.image.ref.name': '1.0-nydus',
    });
    const manifest = readJson<Manifest>(target, root);
    assert.equal(manifest.mediaType, OCI_MANIFEST);
    assert.deepEqual(manifest.subject, source);
    assert.deepEqual(
      { ...manifest.annotations, [`${PREFIX}builder-version`]: 'v' },
      {
        [`${PREFIX}source-digest`]: source.digest,
        [`${PREFIX}source-reference`]: 'example.org/app:1.0',
        [`${PREFIX}fs-version`]: '6',
        [`${PREFIX}builder-version`]: 'v',
      },
    );
    assert.deepEqual(
      manifest.layers.map((layer) => [layer.mediaType, layer.annotations]),
      [
        [BLOB, { [`${PREFIX}blob`]: 'true' }],
        [BLOB, { [`${PREFIX}blob`]: 'true' }],
        [BLOB, { [`${PREFIX}blob`]: 'true' }],
        [`${OCI_LAYER}+gzip`, { [`${PREFIX}bootstrap`]: 'true', [`${PREFIX}fs-version`]: '6' }],
      ],
    );
    const sourceConfig = JSON.parse(
      layout.read((JSON.parse(layout.read(source).toString()) as Manifest).config).toString(),
    ) as Record<string, unknown>;
    const diffId = `sha256:${sha256(gunzipSync(readBlob(target, manifest.layers[3] as Descriptor)))}`;
    assert.deepEqual(readJson(target, manifest.config), {
      ...sourceConfig,
      rootfs: { type: 'layers', diff_ids: [...manifest.layers.slice(0, 3).map((l) => l.digest), diffId] },
      history: [
        ...(sourceConfig['history'] as object[]),
        { created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' },
      ],
    });
    const tar = spawnSync('tar', ['-tvf', '-', '--numeric-owner', '--utc'], {
      input: gunzipSync(readBlob(target, manifest.layers[3] as Descriptor)),
      encoding: 'utf8',
    });
    const members = tar.stdout.trim().split('\n').map((line) => line.split(/\s+/));
    assert.deepEqual(
      members.map(([mode, owner, , day, time, name]) => [mode, owner, day, time, name]),
      [
        ['drwxr-xr-x', '0/0', '1970-01-01', '00:00', 'image/'],
        ['-r--r--r--', '0/0', '1970-01-01', '00:00', 'image/image.boot'],
      ],
    );
    const numbers = JSON.parse(readFileSync(metrics, 'utf8')) as Record<string, number>;
    assert.deepEqual(Object.keys(numbers).sort(), [
      'ConversionElapsed',
      'SourceImageSize',
      'SourcePullElapsed',
      'TargetImageSize',
      'TargetPushElapsed',
    ]);
    assert.ok(Object.values(numbers).every(Number.isInteger));
    assert.equal(
      numbers['TargetImageSize'],
      [manifest.config, ...manifest.layers].reduce((sum, part) => sum + part.size, 0),
    );
    assert.equal(tars.length, 3);
    assert.equal(existsSync(join(work, 'tmp')), false);
  });

  for (const more of [
    ['--fs-version', '6'],
    ['--fs-version', '5', '--compressor', 'lz4_block'],
    ['--chunk-size', '0x10000', '--batch-size', '0x8000'],
    ['--compressor', 'none', '--fs-chunk-size=0x1000'],
  ]) {
    it(`nydusify convert: a mount shows the source's tree, ${more.join(' ')}`, { skip: requireFuse() }, async (t) => {
      const { work, trees, tars, args } = makeSample(tempDir(t));
      const target = join(work, 'target/');
      converted(args(target, more));
      const manifest = readJson<Manifest>(target, rootOf(target));
      const bootstrap = bootstrapOf(target, manifest, join(work, 'boot'));
      const blobs = join(target, 'blobs/sha256');
      const result = join(work, 'check.json');
      nydusImage(['check', '--log-level', 'warn', '--bootstrap', bootstrap, '--output-json', result]);
      const checked = JSON.parse(readFileSync(result, 'utf8')) as { blobs: string[] };
      const digests = manifest.layers.map((layer) => layer.digest.slice(7));
      assert.deepEqual(checked.blobs.filter((id) => !digests.includes(id)), []);
      const expected = join(work, 'expected');
      extractAll(trees, tars, expected);
      await using daemon = await startDaemon({
        workDir: join(work, 'daemon'),
        bootstrap,
        config: { ...localConfig(blobs, join(work, 'cache')), digest_validate: true },
      });
      assert.deepEqual(
        compareTrees(expected, daemon.mountpoint, {
          // what a file system makes of directories; and v5 counts links its own way
          ignore: ['ino', 'blocks', 'nlink', ...directories(expected).map((path) => `size:${path}`), 'mtime:/', 'mtime_nsec:/'],
        }),
        [],
      );
    });
  }

  it('nydusify convert: gives the same digests again, whatever form the source has', (t) => {
    const { work, layout, args } = makeSample(tempDir(t));
    const [one, two] = [join(work, 'one/'), join(work, 'two/')];
    converted(args(one));
    converted(args(two));
    assert.deepEqual(contents(one), contents(two));
    const tar = join(work, 'source.tar');
    assert.equal(spawnSync('tar', ['-cf', tar, '-C', layout.dir, '.']).status, 0);
    const three = join(work, 'three/');
    converted([...args(three), '--source-archive', tar]);
    assert.deepEqual(contents(one), contents(three));
    const archives = [join(work, 'a.tar'), join(work, 'b.tar')] as const;
    for (const path of archives) converted(args(path));
    assert.equal(sha256(readFileSync(archives[0])), sha256(readFileSync(archives[1])));
    const unpacked = join(work, 'unpacked');
    mkdirSync(unpacked);
    assert.equal(spawnSync('tar', ['-xf', archives[0], '-C', unpacked]).status, 0);
    assert.deepEqual(rootOf(unpacked), rootOf(one));
    assert.deepEqual(contents(join(unpacked, 'blobs')), contents(join(one, 'blobs')));
  });

  it('nydusify convert: takes what docker save writes, with links between layers', (t) => {
    const { work, tars, args } = makeSample(tempDir(t));
    const saved = join(work, 'saved');
    const paths = tars.map((tar, i) => {
      mkdirSync(join(saved, `${i}`), { recursive: true });
      writeFileSync(join(saved, `${i}/layer.tar`), tar);
      return `${i}/layer.tar`;
    });
    mkdirSync(join(saved, '9'));
    symlinkSync('../0/layer.tar', join(saved, '9/layer.tar'));
    const config = {
      architecture: 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: [...tars, tars[0] as Buffer].map((tar) => `sha256:${sha256(tar)}`) },
    };
    writeFileSync(join(saved, 'c.json'), JSON.stringify(config));
    writeFileSync(
      join(saved, 'manifest.json'),
      JSON.stringify([{ Config: 'c.json', RepoTags: ['example.org/app:1.0'], Layers: [...paths, '9/layer.tar'] }]),
    );
    const archive = join(work, 'saved.tar');
    assert.equal(spawnSync('tar', ['-cf', archive, '-C', saved, '.']).status, 0);
    const [oci, docker] = [join(work, 'oci/'), join(work, 'docker/')];
    converted(args(oci));
    converted([...args(docker), '--source-archive', archive]);
    const fromOci = readJson<Manifest>(oci, rootOf(oci));
    const fromDocker = readJson<Manifest>(docker, rootOf(docker));
    assert.equal(fromDocker.mediaType, 'application/vnd.docker.distribution.manifest.v2+json');
    assert.equal(fromDocker.config.mediaType, 'application/vnd.docker.container.image.v1+json');
    assert.equal(fromDocker.layers[4]?.mediaType, 'application/vnd.docker.image.rootfs.diff.tar.gzip');
    // the same tars give the same blobs, and one blob stands for a layer that comes twice
    assert.deepEqual(
      fromDocker.layers.slice(0, 4).map((layer) => layer.digest),
      [0, 1, 2, 0].map((i) => fromOci.layers[i]?.digest),
    );
  });

  it('nydusify convert: chooses platforms of an index, and indexes several', (t) => {
    const { work, tars, layout, manifest, args } = makeSample(tempDir(t));
    const [first, , third] = tars as [Buffer, Buffer, Buffer];
    const arm = layout.image([first, third], 'arm64', [
      layout.put(gzipSync(first), `${OCI_LAYER}+gzip`),
      layout.put(third, OCI_LAYER),
    ]);
    const attestation = layout.json({ schemaVersion: 2 }, OCI_MANIFEST);
    const index = layout.json(
      {
        schemaVersion: 2,
        mediaType: OCI_INDEX,
        manifests: [
          { ...manifest, platform: { os: 'linux', architecture: 'amd64' } },
          { ...arm, platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } },
          {
            ...attestation,
            platform: { os: 'unknown', architecture: 'unknown' },
            annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
          },
        ],
      },
      OCI_INDEX,
    );
    layout.index([index]);
    const one = join(work, 'one/');
    converted(args(one));
    assert.equal(readJson<Manifest>(one, rootOf(one)).layers.length, 4);
    const all = join(work, 'all/');
    const result = converted(args(all, ['--all-platforms', '--progress', 'json']));
    const root = rootOf(all);
    assert.equal(root.mediaType, OCI_INDEX);
    const entries = readJson<{ manifests: Descriptor[] }>(all, root).manifests;
    assert.deepEqual(
      entries.map((entry) => entry.platform),
      [
        { os: 'linux', architecture: 'amd64' },
        { os: 'linux', architecture: 'arm64', variant: 'v8' },
      ],
    );
    const [amd64, arm64] = entries.map((entry) => readJson<Manifest>(all, entry)) as [Manifest, Manifest];
    assert.deepEqual(amd64, readJson<Manifest>(one, rootOf(one)));
    assert.deepEqual(
      arm64.layers.slice(0, 2).map((layer) => layer.digest),
      [amd64.layers[0]?.digest, amd64.layers[2]?.digest],
    );
    const events = result.stdout.trim().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.equal(events.filter((e) => e['event'] === 'image').length, 2);
    // shared layers are converted once
    assert.equal(events.filter((e) => e['event'] === 'layer' && e['state'] === 'done').length, 3);
    assert.deepEqual([events.at(-1)?.['event'], events.at(-1)?.['digest']], ['done', root.digest]);
    const missing = nydusify(['convert', ...args(join(work, 'no/')), '--platform', 'linux/s390x']);
    assert.match(fatalOf(missing), /no image for platform linux\/s390x/);
    assert.equal(existsSync(join(work, 'no')), false);
  });

  it('nydusify convert: refuses a layer with a flipped bit and leaves nothing', (t) => {
    const { work, layout, args, tars } = makeSample(tempDir(t));
    const path = join(layout.dir, 'blobs/sha256', sha256(tars[2] as Buffer));
    const bytes = readFileSync(path);
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    const tar = join(work, 'source.tar');
    assert.equal(spawnSync('tar', ['-cf', tar, '-C', layout.dir, '.']).status, 0);
    for (const source of [layout.dir, tar]) {
      for (const target of ['dir/', 'file.tar']) {
        const result = nydusify(['convert', ...args(join(work, 'out', target)), '--source-archive', source]);
        assert.match(fatalOf(result), /target archive directory not accessible/);
        const failed = nydusify(['convert', ...args(join(work, target)), '--source-archive', source]);
        assert.match(fatalOf(failed), new RegExp(`digest sha256:${sha256(bytes)}, expected .*${sha256(tars[2] as Buffer)}`));
      }
    }
    assert.deepEqual(readdirSync(work).sort(), ['source', 'source.tar', 'trees']);
  });

  it('nydusify convert: SIGINT ends it and takes everything away', async (t) => {
    const { work, layout, args } = makeSample(tempDir(t));
    // a layer whose data never ends in time: noise for seconds of work
    const tree = join(work, 'trees/4');
    mkdirSync(tree);
    const big = noise('big', 64 * 1024);
    writeFileSync(join(tree, 'big'), Buffer.concat(Array.from({ length: 3200 }, () => big)));
    const tar = tarOf(tree);
    layout.index([layout.image([tar], 'amd64', [layout.put(tar, OCI_LAYER)])]);
    const archive = join(work, 'source.tar');
    assert.equal(spawnSync('tar', ['-cf', archive, '-C', layout.dir, '.']).status, 0);
    const before = readdirSync(work).sort();
    const [file, ...first] = command();
    const flags = ['--source-archive', archive, '--progress', 'json', '--compressor', 'zstd', '--chunk-size', '0x1000'];
    const child = spawn(file as string, [...first, 'convert', ...args(join(work, 'out/')), ...flags]);
    let output = '';
    const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve(signal ?? code)));
    child.stdout.on('data', (piece: Buffer) => {
      output += piece.toString();
      if (output.includes('"converting"') && !child.killed) child.kill('SIGINT');
    });
    assert.equal(await ended, 130, output);
    assert.deepEqual(readdirSync(work).sort(), before);
  });

  it('nydusify convert: says what is wrong in the words of the contract', (t) => {
    const { work, layout, args } = makeSample(tempDir(t));
    const base = ['--source', 'a', '--source-archive', layout.dir];
    const cases: [string[], string][] = [
      [[], 'Required flag "source" not set'],
      [['--source', 'a', '--source-archive', '/nowhere'], 'source archive not accessible: /nowhere'],
      [[...base, '--target-archive', '/nowhere/x'], 'target archive directory not accessible: /nowhere'],
      [base, '--target or --target-suffix is required'],
      [[...base, '--target', 'b', '--target-suffix', '-n'], '--target conflicts with --target-suffix'],
      [
        ['--source', `a@sha256:${'0'.repeat(64)}`, '--target-suffix', '-n'],
        `unsupported digested image reference: a@sha256:${'0'.repeat(64)}`,
      ],
      [[...base, '--target', 'b', '--backend-type', 'x'], '--backend-type should be one of [oss s3 localfs]'],
      [
        [...base, '--target', 'b', '--backend-type', 'oss'],
        "backend configuration is empty, please specify option '--backend-config'",
      ],
      [[...base, '--target', 'b', '--build-cache', 'c', '--build-cache-tag', 'd'], '--build-cache conflicts with --build-cache-tag'],
      [
        [...base, '--target', 'b', '--build-cache', 'c', '--build-cache-max-records', '0'],
        '--build-cache-max-records should be greater than 0',
      ],
      [
        [...base, '--target', 'b', '--build-cache', 'c', '--build-cache-max-records', '201'],
        '--build-cache-max-records should not be greater than 200',
      ],
      [[...base, '--target', 'b', '--fs-version', '4'], '--fs-version should be one of [5 6]'],
      [
        [...base, '--target', 'b', '--prefetch-dir', '/a', '--prefetch-patterns'],
        '--prefetch-dir conflicts with --prefetch-patterns',
      ],
      [[...base, '--target', 'b', '--chunk-dict', 'x'], 'parse chunk dict arguments: invalid args'],
      [
        [...base, '--target', 'b', '--chunk-dict', 'x:local:y'],
        'parse chunk dict arguments: invalid chunk dict format x, should be [bootstrap]',
      ],
      [
        [...base, '--target', 'b', '--chunk-dict', 'bootstrap:x:y'],
        'parse chunk dict arguments: invalid chunk dict source x, should be [registry local]',
      ],
      [[...base, '--target', 'b', '--oci-ref'], '--oci-ref is not supported yet'],
      [[...base, '--target', 'b', '--merge-platform'], '--merge-platform is not supported yet'],
      [[...base, '--target', 'b', '--chunk-dict', 'bootstrap:local:y'], '--chunk-dict is not supported yet'],
      [[...base, '--nonsense'], 'flag provided but not defined: -nonsense'],
      [[...base, '--oci=perhaps'], 'invalid boolean value "perhaps" for -oci: parse error'],
    ];
    for (const [flags, message] of cases) {
      assert.equal(fatalOf(nydusify(['convert', ...flags])), message, flags.join(' '));
    }
    const fromEnvironment = nydusify(['convert', ...args(join(work, 'x/'))], { FS_VERSION: '7' });
    assert.equal(fatalOf(fromEnvironment), '--fs-version should be one of [5 6]');
    assert.equal(fatalOf(nydusify(['commit'])), 'the command commit is not supported yet');
  });
});

function directories(root: string): string[] {
  const below = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isDirectory());
  return ['/', ...below.map((entry) => join(entry.parentPath, entry.name).slice(root.length))];
}
