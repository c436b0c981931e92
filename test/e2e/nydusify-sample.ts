// An OCI image of three layers, made of plain files, GNU tar and node:zlib, and what a container must see of it.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { repoRoot } from '../support/golden.ts';
import { noise, text } from '../support/sample-tree.ts';

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';
export const BLOB = 'application/vnd.oci.image.layer.nydus.blob.v1';
export const PREFIX = 'containerd.io/snapshot/nydus-';

export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
  platform?: { os: string; architecture: string };
}

export interface Manifest {
  mediaType: string;
  config: Descriptor;
  layers: Descriptor[];
  annotations: Record<string, string>;
  subject?: Descriptor;
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Command line that starts nydusify. */
export function command(): string[] {
  const built = join(process.env['NYDUS_BIN'] ?? '', 'nydusify');
  if ((process.env['NYDUS_BIN'] ?? '') !== '' && existsSync(built)) return [built];
  return [process.execPath, join(repoRoot, 'src/bin/nydusify.ts')];
}

/** Output and end of a run. */
export interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Run nydusify to its end while this process goes on: it may serve a registry. */
export async function nydusify(args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const [file, ...first] = command();
  const child = spawn(file as string, [...first, ...args], { env: { PATH: process.env['PATH'], ...env } });
  child.stdin.end();
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (piece: Buffer) => (stdout += piece.toString()));
  child.stderr.on('data', (piece: Buffer) => (stderr += piece.toString()));
  const status = await new Promise<number | null>((resolve) => child.on('close', (code) => resolve(code)));
  return { status, stdout, stderr };
}

/** Run nydusify and expect success. */
export async function good(args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const result = await nydusify(args, env);
  assert.equal(result.status, 0, result.stderr);
  return result;
}

/** Convert and expect success. */
export function converted(args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return good(['convert', ...args], env);
}

/** Message of the fatal line. */
export function fatalOf(result: Ended): string {
  assert.equal(result.status, 1, result.stderr);
  const line = result.stderr.split('\n').find((l) => l.includes('level=fatal')) ?? '';
  return JSON.parse(/msg=("(?:[^"\\]|\\.)*")/.exec(line)?.[1] ?? '""') as string;
}

/** Three trees: the second deletes and replaces, the third hides a directory. */
export function makeTrees(dir: string): string[] {
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

export function tarOf(tree: string): Buffer {
  const result = spawnSync(
    'tar',
    ['--format=pax', '--numeric-owner', '--sort=name', '--mtime=@1600000000', '-cf', '-', '-C', tree, '.'],
    { maxBuffer: 1 << 28 },
  );
  assert.equal(result.status, 0, String(result.stderr));
  return result.stdout;
}

/** What a container sees: layers extracted by GNU tar, whiteouts applied by the rules of the OCI image spec. */
export function extractAll(trees: string[], tars: Buffer[], into: string): void {
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

export class Layout {
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

export function readBlob(layout: string, { digest, size }: Descriptor): Buffer {
  const bytes = readFileSync(join(layout, 'blobs/sha256', digest.slice(7)));
  assert.equal(`sha256:${sha256(bytes)}`, digest);
  assert.equal(bytes.length, size);
  return bytes;
}

export function readJson<T>(layout: string, descriptor: Descriptor): T {
  return JSON.parse(readBlob(layout, descriptor).toString()) as T;
}

export function rootOf(layout: string): Descriptor {
  const { manifests } = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
    manifests: Descriptor[];
  };
  return manifests.at(-1) as Descriptor;
}

/** All files of a directory with their digests. */
export function contents(dir: string): Record<string, string> {
  const files = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(
    files
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((path) => [path.slice(dir.length), sha256(readFileSync(path))]),
  );
}

export interface Sample {
  work: string;
  trees: string[];
  tars: Buffer[];
  layout: Layout;
  manifest: Descriptor;
  args: (target: string, more?: string[]) => string[];
}

export function makeSample(work: string): Sample {
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
  const from = [
    '--source',
    'example.org/app:1.0',
    '--source-archive',
    layout.dir,
    '--platform',
    'linux/amd64',
  ];
  const to = ['--target', 'example.org/app:1.0-nydus', '--work-dir', join(work, 'tmp')];
  const args = (target: string, more: string[] = []): string[] => [
    ...from,
    ...to,
    '--target-archive',
    target,
    ...more,
  ];
  return { work, trees, tars, layout, manifest, args };
}

/** The bootstrap out of the last layer, unpacked by GNU tar. */
export function bootstrapOf(layout: string, manifest: Manifest, into: string): string {
  mkdirSync(into);
  const tar = gunzipSync(readBlob(layout, manifest.layers.at(-1) as Descriptor));
  const result = spawnSync('tar', ['-xpf', '-', '-C', into], { input: tar });
  assert.equal(result.status, 0, String(result.stderr));
  return join(into, 'image/image.boot');
}

/** Paths of all directories of a tree. */
export function directories(root: string): string[] {
  const below = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  );
  return ['/', ...below.map((entry) => join(entry.parentPath, entry.name).slice(root.length))];
}
