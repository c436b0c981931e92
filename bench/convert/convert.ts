// PERFORMANCE section 3: `nydusify convert` of an image from one registry into another, on loopback; beside what moving the
// bytes alone takes (skopeo copy), and what decompressing and compressing them alone takes (gunzip | zstd -3 -T2). Within one
// registry skopeo would mount the layers, and move nothing.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { findProgram } from '../../test/support/prerequisites.ts';
import { repoRoot } from '../../test/support/golden.ts';
import { median, settle, timed, type BenchContext, type Line, type Timed } from '../support/context.ts';
import { manyFiles, relativeFiles } from '../support/trees.ts';

const LAYERS = 4;
const MEMORY_LIMIT = 400e6;
const GROUP = 'converting, registry to registry';

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function nydusify(): string[] {
  const folder = process.env['NYDUS_BIN'] ?? '';
  const built = join(folder, 'nydusify');
  return folder !== '' && existsSync(built)
    ? [built]
    : [process.execPath, join(repoRoot, 'src/bin/nydusify.ts')];
}

/** An OCI layout with the tree's files in gzip layers; made once. */
async function makeImage(context: BenchContext): Promise<string> {
  const dir = join(context.dir, 'images', `oci-many-${LAYERS}`);
  if (existsSync(dir)) return dir;
  context.note('convert: making the source image (once)');
  const tree = manyFiles(context);
  const draft = `${dir}.draft`;
  rmSync(draft, { recursive: true, force: true });
  const blobs = join(draft, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const put = (bytes: Buffer, mediaType: string): { mediaType: string; digest: string; size: number } => {
    writeFileSync(join(blobs, sha256(bytes)), bytes);
    return { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  };
  const files = relativeFiles(tree);
  const share = Math.ceil(files.length / LAYERS);
  const layers = [];
  const diffIds: string[] = [];
  for (let at = 0; at < LAYERS; at++) {
    const [list, layer] = [join(draft, 'list'), join(draft, 'layer')];
    writeFileSync(list, files.slice(at * share, (at + 1) * share).join('\n'));
    await timed(['sh', '-c', 'tar -C "$0" --sort=name -cf - -T "$1" | gzip -6 > "$2"', tree, list, layer]);
    const bytes = readFileSync(layer);
    diffIds.push(`sha256:${sha256(gunzipSync(bytes))}`);
    layers.push(put(bytes, 'application/vnd.oci.image.layer.v1.tar+gzip'));
    rmSync(list);
    rmSync(layer);
  }
  const json = (value: object): Buffer => Buffer.from(JSON.stringify(value));
  const platform = { architecture: process.arch === 'arm64' ? 'arm64' : 'amd64', os: 'linux' };
  const config = put(
    json({ ...platform, rootfs: { type: 'layers', diff_ids: diffIds } }),
    'application/vnd.oci.image.config.v1+json',
  );
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = put(json({ schemaVersion: 2, mediaType, config, layers }), mediaType);
  const annotations = { 'org.opencontainers.image.ref.name': '1' };
  writeFileSync(
    join(draft, 'index.json'),
    json({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  writeFileSync(join(draft, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  renameSync(draft, dir);
  return dir;
}

function layerFiles(image: string): string[] {
  const file = (digest: string): string => join(image, 'blobs/sha256', digest.slice('sha256:'.length));
  const { manifests } = JSON.parse(readFileSync(join(image, 'index.json'), 'utf8')) as {
    manifests: { digest: string }[];
  };
  const { layers } = JSON.parse(readFileSync(file(manifests[0]?.digest ?? ''), 'utf8')) as {
    layers: { digest: string }[];
  };
  return layers.map(({ digest }) => file(digest));
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Debian's registry, else ours, as a process of its own. */
async function withRegistry<T>(
  context: BenchContext,
  folder: string,
  use: (host: string, name: string) => Promise<T>,
): Promise<T> {
  const dir = join(context.dir, 'work', folder);
  mkdirSync(dir, { recursive: true });
  const host = `127.0.0.1:${await freePort()}`;
  const debian = findProgram('docker-registry');
  let command = [...nydusify(), 'serve-registry', '--dir', dir, '--listen', host];
  if (debian !== undefined) {
    const file = join(context.dir, 'work', `${folder}.yml`);
    const storage = `storage: { filesystem: { rootdirectory: ${dir} } }`;
    writeFileSync(file, `version: 0.1\nlog: { level: error }\n${storage}\nhttp: { addr: "${host}" }\n`);
    command = [debian, 'serve', file];
  }
  const [file = '', ...args] = command;
  const child = spawn(file, args, { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  try {
    for (;;) {
      if (child.exitCode !== null) throw new Error(`${file} ended`);
      const up = await fetch(`http://${host}/v2/`).catch(() => undefined);
      await up?.arrayBuffer();
      if (up?.status === 200) break;
      await sleep(50);
    }
    return await use(host, debian === undefined ? 'nydusify serve-registry' : 'docker-registry');
  } finally {
    child.kill();
    await ended;
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Lines of section 3 that concern converting. */
export async function benchConvert(context: BenchContext): Promise<Line[]> {
  const skopeo = findProgram('skopeo');
  if (skopeo === undefined) throw new Error('skopeo is not installed: apt-get install skopeo');
  const image = await makeImage(context);
  const layers = layerFiles(image);
  const size = layers.reduce((sum, file) => sum + statSync(file).size, 0);
  return withRegistry(context, 'source', async (from, registry) => {
    const copy = [skopeo, '--insecure-policy', 'copy', '--quiet'];
    await timed([...copy, '--dest-tls-verify=false', `oci:${image}:1`, `docker://${from}/bench/app:1`]);
    const results: Record<string, Timed[]> = {};
    const flags = ['--plain-http', '--work-dir', join(context.dir, 'work', 'convert'), '--progress', 'none'];
    const bothPlain = ['--src-tls-verify=false', '--dest-tls-verify=false'];
    const recompress = 'for f; do gunzip -c "$f" | zstd -q -3 -T2 > /dev/null; done';
    for (let round = 0; round < context.rounds; round++) {
      context.note(`convert: round ${round + 1}`);
      // an empty one each time: nothing that is there already is moved again
      await withRegistry(context, 'target', async (to) => {
        const places = ['--source', `${from}/bench/app:1`, '--target', `${to}/bench/nydus:1`];
        const images = [`docker://${from}/bench/app:1`, `docker://${to}/copies/app:1`];
        const commands: Record<string, string[]> = {
          ours: [...nydusify(), '--log-level', 'warn', 'convert', ...places, ...flags],
          'skopeo copy': [...copy, ...bothPlain, ...images],
          'gunzip | zstd': ['sh', '-c', recompress, 'sh', ...layers],
        };
        for (const [name, command] of Object.entries(commands)) {
          await settle();
          (results[name] ??= []).push(await timed(command));
        }
      });
    }
    return linesOf(results, size, registry);
  });
}

function linesOf(results: Record<string, Timed[]>, size: number, registry: string): Line[] {
  const medians = (pick: (run: Timed) => number): Record<string, number> =>
    Object.fromEntries(Object.entries(results).map(([name, runs]) => [name, median(runs.map(pick))]));
  const what = `${Math.round(size / 1e6)} MB in ${LAYERS} gzip layers, zstd`;
  const cpu = medians(({ cpuMs }) => cpuMs / 1000)['ours'] ?? Number.NaN;
  return [
    {
      group: GROUP,
      what,
      unit: 's',
      better: 'less',
      figures: medians(({ ms }) => ms / 1000),
      remark: `registries: ${registry}; CPU seconds of ours: ${cpu.toFixed(1)}; upstream's nydusify took 4.9 s for 165 MB on such a machine (PERFORMANCE section 3)`,
    },
    {
      group: `${GROUP}: peak memory`,
      what,
      unit: 'MB',
      better: 'less',
      figures: { ours: (medians(({ peakBytes }) => peakBytes)['ours'] ?? Number.NaN) / 1e6 },
      target: { limit: MEMORY_LIMIT / 1e6 },
    },
  ];
}
