// Every v6 golden case, mounted by the kernel from an empty cache and fed on demand, shows the tree of its manifest.
// Source: golden/README.md section 2, with the three differences of the kernel's view that it names.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  firstReason,
  goldenCases,
  goldenIsComplete,
  goldenPath,
  percentEncode,
  readManifest,
  skipUnlessGolden,
  tempDir,
} from '../../../test/support/golden.ts';
import { compareTree, walkTree } from '../../../test/support/tree-manifest.ts';
import { requirePreContent } from '../../../test/support/kernel-erofs.ts';
import { loadInlineBootstrap } from '../../rafs/open-inline.ts';

/** Kinds of blobs that no driver serves yet: they are refused, all of them, and by name. */
const REFUSED = /^(targz-ref-|tar-ref-|tarfs-|estargz-ref-)|-encrypt/;

interface Case {
  name: string;
  bootstrap: string;
  blobs: string;
  manifest: string;
}

/** All v6 cases with a manifest and all their blobs; a bootstrap inside a blob is taken out into `dir`. */
async function usable(dir: string): Promise<Case[]> {
  const found: Case[] = [];
  for (const name of goldenCases()) {
    const info = JSON.parse(readFileSync(goldenPath('cases', name, 'case.json') ?? '', 'utf8')) as {
      manifest?: string;
      blob_file?: string;
      files: Record<string, { stored?: boolean }>;
    };
    const stored = Object.values(info.files).every((file) => file.stored !== false);
    if (info.manifest === undefined || !stored) continue;
    const blobs = goldenPath('cases', name, 'blobs') ?? join(dir, 'none');
    let bootstrap = goldenPath('cases', name, 'bootstrap');
    if (bootstrap === undefined && info.blob_file !== undefined) {
      const blob = readFileSync(join(blobs, info.blob_file));
      const { bytes } = await loadInlineBootstrap(
        (start, end) => Promise.resolve(blob.subarray(start, end)),
        blob.length,
      );
      mkdirSync(join(dir, name), { recursive: true });
      bootstrap = join(dir, name, `${info.blob_file}.image.boot`);
      writeFileSync(bootstrap, bytes);
    }
    if (bootstrap === undefined) continue;
    const magic = readFileSync(bootstrap).readUInt32LE(1024);
    if (magic === 0xe0f5e1e2) found.push({ name, bootstrap, blobs, manifest: info.manifest });
  }
  return found;
}

for (const driver of ['fanotify', 'fileio'])
  test(
    `ErofsMount: every v6 golden image is seen through the kernel (${driver}) as its manifest says`,
    { skip: firstReason(requirePreContent(), skipUnlessGolden('cases')) },
    async (t) => {
      const dir = tempDir(t);
      mkdirSync(join(dir, 'none'));
      const all = await usable(dir);
      const cases = all.filter(({ name }) => !REFUSED.test(name));
      assert.ok(cases.length >= (goldenIsComplete() ? 68 : 20), `${cases.length} cases`);
      const wanted = all.map(({ name, bootstrap, blobs }) => ({
        bootstrap,
        blobs,
        cache: join(dir, 'cache', name),
        mountpoint: join(dir, 'mnt', name),
      }));
      const child = spawn(
        process.execPath,
        [
          fileURLToPath(new URL('./testing/mount-images.ts', import.meta.url)),
          JSON.stringify(wanted),
          driver,
        ],
        { stdio: ['pipe', 'pipe', 'pipe'] },
      );
      t.after(() => child.kill('SIGKILL'));
      let complaints = '';
      child.stderr.on('data', (text: Buffer) => (complaints += text.toString()));
      const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
      const next = async (): Promise<string> => (await lines.next()).value ?? `ended: ${complaints}`;
      for (const { name } of all) {
        if (REFUSED.test(name)) assert.match(await next(), /is of a kind that is not supported yet/, name);
        else assert.equal(await next(), 'mounted', name);
      }
      for (const { name, manifest } of cases) {
        const seen = readManifest(manifest);
        const timeless = seen.filter((entry) => entry.mtime === 'mount');
        const expected = seen.map((entry) => ({
          ...entry,
          mtime: entry.mtime === 'mount' ? 0 : entry.mtime,
        }));
        const ignore = ['blocks', 'blksize', 'ctime', 'atime', 'mode:/'];
        ignore.push(...timeless.map((entry) => `mtime_nsec:${percentEncode(entry.path)}`));
        // what upstream cannot read of its own image (optimize-v6-batch) we can
        for (const { path } of seen.filter(({ errors }) => errors?.['read_error'] !== undefined))
          ignore.push(`sha256:${percentEncode(path)}`, `errors:${percentEncode(path)}`);
        const root = join(dir, 'mnt', name);
        assert.deepEqual(compareTree(root, expected, { ignore }), [], `${name}: ${complaints}`);
        assert.equal(walkTree(root).length, seen.length);
      }
      child.stdin.end();
      const result = JSON.parse(await next()) as {
        free: boolean;
        counts: { events: number; denied: number };
      };
      assert.equal(result.free, true);
      assert.ok(result.counts.events > cases.length, JSON.stringify(result));
      assert.equal(result.counts.denied, 0, complaints);
      if (child.exitCode === null) await once(child, 'exit');
      assert.equal(child.exitCode, 0, complaints);
      assert.deepEqual(readdirSync(join(dir, 'mnt', cases[0]?.name ?? '')), []);
      assert.ok(existsSync(join(dir, 'cache')));
    },
  );
