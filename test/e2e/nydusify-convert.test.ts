// nydusify convert as a process, from and to archives and layouts: the documents it writes, and what a mount shows.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { localConfig, startDaemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { nydusImage } from '../support/programs.ts';
import { noise } from '../support/sample-tree.ts';
import { compareTrees } from '../support/tree-manifest.ts';
import {
  BLOB,
  bootstrapOf,
  command,
  contents,
  converted,
  directories,
  extractAll,
  fatalOf,
  makeSample,
  nydusify,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  PREFIX,
  readBlob,
  readJson,
  rootOf,
  sha256,
  tarOf,
  type Descriptor,
  type Manifest,
} from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));

describe('nydusify convert', { skip }, () => {
  it('nydusify convert: writes manifest, config and annotations as the contract says', async (t) => {
    const { work, layout, manifest: source, args, tars } = makeSample(tempDir(t));
    const target = join(work, 'target/');
    const metrics = join(work, 'metrics.json');
    await converted(args(target, ['--output-json', metrics, '--with-referrer']));
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
    const members = tar.stdout
      .trim()
      .split('\n')
      .map((line) => line.split(/\s+/));
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
    it(
      `nydusify convert: a mount shows the source's tree, ${more.join(' ')}`,
      { skip: requireFuse() },
      async (t) => {
        const { work, trees, tars, args } = makeSample(tempDir(t));
        const target = join(work, 'target/');
        await converted(args(target, more));
        const manifest = readJson<Manifest>(target, rootOf(target));
        const bootstrap = bootstrapOf(target, manifest, join(work, 'boot'));
        const blobs = join(target, 'blobs/sha256');
        const result = join(work, 'check.json');
        nydusImage(['check', '--log-level', 'warn', '--bootstrap', bootstrap, '--output-json', result]);
        const checked = JSON.parse(readFileSync(result, 'utf8')) as { blobs: string[] };
        const digests = manifest.layers.map((layer) => layer.digest.slice(7));
        assert.deepEqual(
          checked.blobs.filter((id) => !digests.includes(id)),
          [],
        );
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
            ignore: [
              'ino',
              'blocks',
              'nlink',
              ...directories(expected).map((path) => `size:${path}`),
              'mtime:/',
              'mtime_nsec:/',
            ],
          }),
          [],
        );
      },
    );
  }

  it('nydusify convert: gives the same digests again, whatever form the source has', async (t) => {
    const { work, layout, args } = makeSample(tempDir(t));
    const [one, two] = [join(work, 'one/'), join(work, 'two/')];
    await converted(args(one));
    await converted(args(two));
    assert.deepEqual(contents(one), contents(two));
    const tar = join(work, 'source.tar');
    assert.equal(spawnSync('tar', ['-cf', tar, '-C', layout.dir, '.']).status, 0);
    const three = join(work, 'three/');
    await converted([...args(three), '--source-archive', tar]);
    assert.deepEqual(contents(one), contents(three));
    const archives = [join(work, 'a.tar'), join(work, 'b.tar')] as const;
    for (const path of archives) await converted(args(path));
    assert.equal(sha256(readFileSync(archives[0])), sha256(readFileSync(archives[1])));
    const unpacked = join(work, 'unpacked');
    mkdirSync(unpacked);
    assert.equal(spawnSync('tar', ['-xf', archives[0], '-C', unpacked]).status, 0);
    assert.deepEqual(rootOf(unpacked), rootOf(one));
    assert.deepEqual(contents(join(unpacked, 'blobs')), contents(join(one, 'blobs')));
  });

  it('nydusify convert: takes what docker save writes, with links between layers', async (t) => {
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
      rootfs: {
        type: 'layers',
        diff_ids: [...tars, tars[0] as Buffer].map((tar) => `sha256:${sha256(tar)}`),
      },
    };
    writeFileSync(join(saved, 'c.json'), JSON.stringify(config));
    writeFileSync(
      join(saved, 'manifest.json'),
      JSON.stringify([
        { Config: 'c.json', RepoTags: ['example.org/app:1.0'], Layers: [...paths, '9/layer.tar'] },
      ]),
    );
    const archive = join(work, 'saved.tar');
    assert.equal(spawnSync('tar', ['-cf', archive, '-C', saved, '.']).status, 0);
    const [oci, docker] = [join(work, 'oci/'), join(work, 'docker/')];
    await converted(args(oci));
    await converted([...args(docker), '--source-archive', archive]);
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

  it('nydusify convert: chooses platforms of an index, and indexes several', async (t) => {
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
    await converted(args(one));
    assert.equal(readJson<Manifest>(one, rootOf(one)).layers.length, 4);
    const all = join(work, 'all/');
    const result = await converted(args(all, ['--all-platforms', '--progress', 'json']));
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
    const events = result.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.equal(events.filter((e) => e['event'] === 'image').length, 2);
    // shared layers are converted once
    assert.equal(events.filter((e) => e['event'] === 'layer' && e['state'] === 'done').length, 3);
    assert.deepEqual([events.at(-1)?.['event'], events.at(-1)?.['digest']], ['done', root.digest]);
    const missing = await nydusify(['convert', ...args(join(work, 'no/')), '--platform', 'linux/s390x']);
    assert.match(fatalOf(missing), /no image for platform linux\/s390x/);
    assert.equal(existsSync(join(work, 'no')), false);
  });

  it('nydusify convert: refuses a layer with a flipped bit and leaves nothing', async (t) => {
    const { work, layout, args, tars } = makeSample(tempDir(t));
    const path = join(layout.dir, 'blobs/sha256', sha256(tars[2] as Buffer));
    const bytes = readFileSync(path);
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    const tar = join(work, 'source.tar');
    assert.equal(spawnSync('tar', ['-cf', tar, '-C', layout.dir, '.']).status, 0);
    for (const source of [layout.dir, tar]) {
      for (const target of ['dir/', 'file.tar']) {
        const result = await nydusify([
          'convert',
          ...args(join(work, 'out', target)),
          '--source-archive',
          source,
        ]);
        assert.match(fatalOf(result), /target archive directory not accessible/);
        const failed = await nydusify(['convert', ...args(join(work, target)), '--source-archive', source]);
        assert.match(
          fatalOf(failed),
          new RegExp(`digest sha256:${sha256(bytes)}, expected .*${sha256(tars[2] as Buffer)}`),
        );
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
    const flags = [
      '--source-archive',
      archive,
      '--progress',
      'json',
      '--compressor',
      'zstd',
      '--chunk-size',
      '0x1000',
    ];
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
});
