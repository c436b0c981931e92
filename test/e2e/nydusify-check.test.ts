// nydusify check: a good image passes, and every kind of damage and difference is named exactly.
import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { RegistryServer } from '../../src/registry/server/server.ts';
import { firstReason, requireFuse, requireRoot } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { mountsBelow, tempDir } from '../support/temporary.ts';
import {
  converted,
  fatalOf,
  Layout,
  makeSample,
  nydusify,
  OCI_CONFIG,
  OCI_LAYER,
  readBlob,
  readJson,
  rootOf,
  sha256,
  tarOf,
  type Descriptor,
  type Ended,
  type Manifest,
  type Sample,
} from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requireFuse(), requirePeer('tar'));

interface Report {
  ok: boolean;
  rules: { rule: string; ok: boolean; problems: string[] }[];
}

/** Check a layout, against the sample unless `alone`. */
function check(sample: Sample, target: string, alone = false): Promise<Ended> {
  const work = join(sample.work, 'output');
  const own = ['--target', 'example.org/app:1.0-nydus', '--target-archive', target, '--work-dir', work];
  const source = ['--source', 'example.org/app:1.0', '--source-archive', sample.layout.dir];
  const more = ['--platform', 'linux/amd64', '--output', 'json', ...(alone ? [] : source)];
  return nydusify(['check', ...own, ...more]);
}

function problemsOf(result: Ended): Record<string, string[]> {
  const { rules } = JSON.parse(result.stdout) as Report;
  return Object.fromEntries(rules.map(({ rule, problems }) => [rule, problems]));
}

test(
  'nydusify check: from registry to registry, all trees are equal, nothing stays mounted',
  { skip },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const { work, layout } = sample;
    await using server = await RegistryServer.start({ dir: join(work, 'registry') });
    const [source, target] = [`${server.host}/lib/app:1`, `${server.host}/lib/app:1-nydus`];
    const tmp = ['--work-dir', join(work, 'tmp')];
    const copied = await nydusify(['copy', '--source', `file://${layout.dir}`, '--target', source, ...tmp]);
    assert.equal(copied.status, 0, copied.stderr);
    await converted(['--source', source, '--target', target, '--platform', 'linux/amd64', ...tmp]);
    const output = join(work, 'output');
    const args = ['--source', source, '--target', target, '--work-dir', output, '--platform', 'linux/amd64'];
    const result = await nydusify(['check', ...args]);
    assert.equal(result.status, 0, result.stderr);
    assert.match(result.stderr, /compared 14 entries/);
    assert.match(result.stderr, /level=info msg="verified image"\n$/);
    assert.equal(result.stdout, '');
    assert.deepEqual(readdirSync(join(output, 'source')).sort(), ['oci_config.json', 'oci_manifest.json']);
    assert.deepEqual(readdirSync(join(output, 'target')).sort(), [
      'nydus_bootstrap',
      'nydus_config.json',
      'nydus_manifest.json',
      'nydus_output.json',
    ]);
    assert.deepEqual(mountsBelow(work), []);
  },
);

/** Another image with the sample's config: one entry of each kind is not the same. */
function changedSample(work: string): Sample {
  const sample = makeSample(work);
  const tree = join(work, 'changed');
  cpSync(sample.trees[0] ?? '', tree, { recursive: true, verbatimSymlinks: true });
  writeFileSync(join(tree, 'bin/tool'), 'another tool'); // size
  writeFileSync(join(tree, 'extra'), 'not there before');
  rmSync(join(tree, 'empty'));
  rmSync(join(tree, 'usr/tool'));
  symlinkSync('../bin/tuul', join(tree, 'usr/tool'));
  chmodSync(join(tree, 'usr/share'), 0o4750);
  chownSync(join(tree, 'usr/share/big'), 12, 34);
  const layout = new Layout(sample.layout.dir);
  const tars = [tarOf(tree), ...sample.tars.slice(1)];
  const layers = tars.map((tar) => layout.put(gzipSync(tar), `${OCI_LAYER}+gzip`));
  layout.index([layout.image(tars, 'amd64', layers)]);
  return sample;
}

test(
  'nydusify check: every difference of two trees is told, and the first ends the check',
  { skip },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const changed = changedSample(tempDir(t));
    const target = join(changed.work, 'target');
    await converted(changed.args(`${target}/`));
    const result = await check(sample, target);
    const tool = 'file not match in target image: /bin/tool: size 300000 != 12';
    assert.equal(fatalOf(result), `validate filesystem failed: ${tool}`);
    assert.deepEqual(problemsOf(result), {
      manifest: [],
      bootstrap: [],
      filesystem: [
        tool,
        'file not found in target image: /empty',
        'file not found in source image: /extra',
        'file not match in target image: /usr/share: mode 40755 != 44750',
        'file not match in target image: /usr/share/big: uid 0 != 12, gid 0 != 34',
        'file not match in target image: /usr/tool: target "../bin/tool" != "../bin/tuul"',
      ],
    });
    assert.deepEqual(mountsBelow(sample.work), []);
  },
);

/** A layout with the converted sample after a change of its manifest and config. */
function edited(
  from: string,
  to: string,
  change: (manifest: Manifest, config: { rootfs: { diff_ids: string[] }; config: object }) => void,
): string {
  cpSync(from, to, { recursive: true });
  const layout = new Layout(to);
  const manifest = readJson<Manifest>(to, rootOf(to));
  const config = readJson<{ rootfs: { diff_ids: string[] }; config: object }>(to, manifest.config);
  change(manifest, config);
  manifest.config = layout.json(config, OCI_CONFIG);
  layout.index([layout.json(manifest, manifest.mediaType)]);
  return to;
}

test(
  'nydusify check: manifests, configs and bootstraps that are not as they must be',
  { skip },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const whole = join(sample.work, 'whole');
    await converted(sample.args(`${whole}/`));
    const { layers } = readJson<Manifest>(whole, rootOf(whole));
    const [first, second, third, last] = layers as [Descriptor, Descriptor, Descriptor, Descriptor];
    let count = 0;
    const problems = async (
      change: Parameters<typeof edited>[2],
      alone = true,
    ): Promise<Record<string, string[]>> =>
      problemsOf(await check(sample, edited(whole, join(sample.work, `edited-${count++}`), change), alone));

    const noAnnotation = await problems((manifest) => delete manifest.layers[1]?.annotations);
    assert.deepEqual(noAnnotation['manifest'], [
      `invalid blob layer in nydus image manifest: ${second.digest}`,
    ]);

    const fewer = await problems((_, config) => config.rootfs.diff_ids.shift());
    assert.deepEqual(fewer['manifest'], ['invalid diff ids in image config: 3 (diff ids) != 4 (layers)']);

    const blobGone = await problems((manifest, config) => {
      manifest.layers.splice(0, 1);
      config.rootfs.diff_ids.splice(0, 1);
    });
    assert.deepEqual(blobGone, {
      manifest: [],
      bootstrap: [
        'nydus blobs in the blob table of bootstrap(3) should all appear in the layers of manifest(2), ' +
          `missing: ${first.digest.slice(7)}`,
      ],
    });

    const otherConfig = await problems(
      (_, config) => Object.assign(config.config, { Env: ['A=c'], ArgsEscaped: true }),
      false,
    );
    assert.deepEqual(otherConfig, {
      manifest: ['source image config should be equal with target image config: Env: ["A=b"] != ["A=c"]'],
      bootstrap: [],
      filesystem: [],
    });

    const wrongId = edited(whole, join(sample.work, 'wrong-id'), (_, config) => {
      config.rootfs.diff_ids[3] = third.digest;
    });
    const tar = gunzipSync(readBlob(whole, last));
    assert.equal(
      fatalOf(await check(sample, wrongId, true)),
      `invalid bootstrap layer diff id: sha256:${sha256(tar)} (calculated) != ${third.digest} (in image config)`,
    );

    const at = tar.indexOf(Buffer.from('app.conf'));
    tar[at] = '/'.charCodeAt(0); // no name has a slash
    const damaged = await problems((manifest, config) => {
      const layout = new Layout(join(sample.work, `edited-${count - 1}`));
      manifest.layers[3] = { ...last, ...layout.put(gzipSync(tar), last.mediaType) };
      config.rootfs.diff_ids[3] = `sha256:${sha256(tar)}`;
    }, false);
    assert.ok((damaged['bootstrap'] ?? []).length > 0);
    assert.equal('filesystem' in damaged, false, 'a broken bootstrap is not mounted');
  },
);

test(
  'nydusify check: a reference without the platform, and mistakes in the flags',
  { skip: requirePeer('tar') },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const target = join(sample.work, 'index');
    mkdirSync(target);
    const layout = new Layout(target);
    const entry = { ...layout.image([], 'arm64', []), platform: { os: 'linux', architecture: 'arm64' } };
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    layout.index([layout.json({ schemaVersion: 2, mediaType, manifests: [entry] }, mediaType)]);
    assert.match(fatalOf(await check(sample, target, true)), /has no image for linux\/amd64$/);
    for (const [args, message] of [
      [[], 'Required flag "target" not set'],
      [['--target', 'x', '--output', 'xml'], '--output should be one of [text json]'],
      [
        ['--target', 'x', '--target-archive', target, '--target-backend-type', 'oss'],
        "backend configuration is empty, please specify option '--target-backend-config'",
      ],
    ] as [string[], string][]) {
      const work = ['--work-dir', join(sample.work, 'output')];
      assert.equal(fatalOf(await nydusify(['check', ...work, ...args])), message);
    }
  },
);
