// Images made of the golden inputs, with all that is odd in them, converted, compared file by file with what tar(1) and
// overlayfs make of them, and turned back.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { TarType } from '../../src/format/tar/archive-header.ts';
import { sampleTar } from '../../src/format/tar/archive-samples.ts';
import {
  firstReason,
  goldenDir,
  readManifest,
  requireFuse,
  requirePeer,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from '../support/golden.ts';
import {
  converted,
  fatalOf,
  Layout,
  nydusify,
  OCI_LAYER,
  readBlob,
  readJson,
  rootOf,
  type Descriptor,
  type Manifest,
} from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requireFuse(), requirePeer('tar'));
const LAYERS = ['layer1', 'layer2', 'layer3', 'layer4', 'layer5'];
/** Lowest first. Whiteouts of the lowest layer of an image are ordinary files: it has none. */
const ALL = ['tiny', 'small', 'odd', 'oddtar', 'xattr', 'xattrtar', 'base', 'up-oci', ...LAYERS].concat([
  'app1',
  'app2',
  'nodata',
  'bounds1m',
  'fusetree',
  'emptyroot',
]);

/** A layout with an image of these gzipped tars. */
function layoutOf(dir: string, layers: readonly Buffer[]): string {
  const layout = new Layout(dir);
  const image = layout.image(
    layers.map((layer) => gunzipSync(layer)),
    'amd64',
    layers.map((layer) => layout.put(layer, `${OCI_LAYER}+gzip`)),
  );
  layout.index([{ ...image, annotations: { 'org.opencontainers.image.ref.name': '1.0' } }]);
  return dir;
}

function inputs(names: readonly string[]): Buffer[] {
  return names.map((name) => readFileSync(join(goldenDir() ?? '', 'input', `${name}.tar.gz`)));
}

const SOURCE = ['--source', 'example.org/app:1.0', '--platform', 'linux/amd64'];
const TARGET = ['--target', 'example.org/app:n'];

/** Convert a layout and compare both trees. @returns what check says of the file systems */
async function problems(work: string, layout: string, version: string): Promise<string[]> {
  const [target, tmp] = [join(work, `out${version}`), ['--work-dir', join(work, 'tmp')]];
  const places = [...SOURCE, '--source-archive', layout, ...TARGET, '--target-archive'];
  await converted([...places, `${target}/`, ...tmp, '--fs-version', version]);
  const result = await nydusify(['check', ...places, target, ...tmp, '--output', 'json']);
  const { rules } = JSON.parse(result.stdout) as { rules: { rule: string; problems: string[] }[] };
  const found = Object.fromEntries(rules.map((rule) => [rule.rule, rule.problems]));
  assert.deepEqual({ ...found, filesystem: [] }, { manifest: [], bootstrap: [], filesystem: [] });
  return found['filesystem'] ?? [];
}

/** Names of files that have hard links, in any of the inputs. */
function linked(names: readonly string[]): Set<string> {
  const links = names
    .flatMap((name) => readManifest(`input/${name}.manifest.jsonl`))
    .filter(({ type }) => type === 'hardlink');
  return new Set(links.flatMap(({ path, link }) => [path.toString(), link?.toString() ?? '']));
}

const HEADER_OF_LINK = /^file not match in target image: (\S+): mode [0-7]+ != 100000(, [ug]id \d+ != 0)*$/;

/** The layer of `small`, and another tree, as gzip programs of all kinds write them; what trails a member is no tar. */
function gzipForms(): Buffer[] {
  const dir = join(goldenDir() ?? '', 'input', 'gz');
  if (!existsSync(dir)) return [];
  return readdirSync(dir)
    .filter((name) => !name.includes('garbage'))
    .map((name) => readFileSync(join(dir, name)));
}

for (const [what, names, versions] of [
  ['layer1 to layer5', LAYERS, ['5']],
  ['all inputs as one image', ALL, ['6']],
] as const) {
  const missing = firstReason(...names.map((name) => skipUnlessGolden('input', `${name}.tar.gz`)));
  test(`nydusify convert: golden ${what}`, { skip: firstReason(skip, missing) }, async (t) => {
    const work = tempDir(t);
    // a tmpfs: other file systems do not hold attributes of 60000 bytes
    const mounted = spawnSync('mount', ['-t', 'tmpfs', 'nydus-test', work], { encoding: 'utf8' });
    assert.equal(mounted.status, 0, mounted.stderr);
    const layout = layoutOf(join(work, 'source'), [...inputs(names), ...(names === ALL ? gzipForms() : [])]);
    const links = linked(names).add('/a/t9').add('/b/hard'); // the latter two in gz/
    for (const version of versions) {
      // the headers of hard links have mode 0 in these tars: runtimes and upstream apply it, tar(1) does not. And overlayfs
      // hides devices 0:0
      const others = (await problems(work, layout, version)).filter(
        (problem) => !links.has(HEADER_OF_LINK.exec(problem)?.[1] ?? ''),
      );
      const device = 'file not found in source image: /dev/c-zero';
      assert.deepEqual(others, names.includes('odd') ? [device] : []);
    }
  });
}

test(
  'nydusify convert: a hard link into a lower layer is one more name of the file, and stays a link',
  { skip },
  async (t) => {
    const work = tempDir(t);
    const lower = sampleTar([
      { name: 'a/', type: TarType.directory },
      { name: 'a/tool', data: Buffer.alloc(70_000, 'x'), mode: 0o4711, uid: 12 },
    ]);
    const upper = sampleTar([
      { name: 'b/', type: TarType.directory },
      { name: 'b/link', type: TarType.hardlink, link: 'a/tool' },
      { name: 'b/again', type: TarType.hardlink, link: 'b/link' },
    ]);
    const layout = layoutOf(
      join(work, 'source'),
      [lower, upper].map((tar) => gzipSync(tar)),
    );
    for (const version of ['5', '6']) assert.deepEqual(await problems(work, layout, version), []);
    const back = join(work, 'back');
    const tmp = ['--work-dir', join(work, 'tmp')];
    await converted([
      '--reverse',
      ...SOURCE,
      '--source-archive',
      join(work, 'out6'),
      ...TARGET,
      ...tmp,
      '--target-archive',
      `${back}/`,
    ]);
    const layer = readJson<Manifest>(back, rootOf(back)).layers[1] as Descriptor;
    const { stdout } = spawnSync('tar', ['-tvf', '-'], {
      input: gunzipSync(readBlob(back, layer)),
      encoding: 'utf8',
    });
    assert.deepEqual(
      stdout
        .split('\n')
        .filter((line) => line.startsWith('h'))
        .map((line) => line.replace(/.*(b\/\S+) /, '$1 ')),
      ['b/again link to a/tool', 'b/link link to a/tool'],
    );
    const wrong = layoutOf(
      join(work, 'wrong'),
      [lower, sampleTar([{ name: 'l', type: TarType.hardlink, link: 'a/none' }])].map((tar) => gzipSync(tar)),
    );
    const failed = await nydusify([
      'convert',
      ...SOURCE,
      '--source-archive',
      wrong,
      ...TARGET,
      ...tmp,
      '--target-archive',
      join(work, 'no/'),
    ]);
    assert.equal(fatalOf(failed), 'tarball: unknown target /a/none for hardlink l');
  },
);
