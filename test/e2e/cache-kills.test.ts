// Two real daemons on one cache directory, under readers that compare every byte, killed at random and started again. After each
// kill the map of the cache is held against the data: a bit never leads its chunk. NYDUS_CACHE_KILLS: how many kills.
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../src/base/log.ts';
import { openBootstrap } from '../../src/rafs/open.ts';
import { verifyCache } from '../../src/rafs/verify-cache.ts';
import { listCache } from '../../src/storage/cache/cache-dir.ts';
import { localConfig, startDaemon, type Daemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';
import { noise } from '../support/sample-tree.ts';

const KILLS = Number(process.env['NYDUS_CACHE_KILLS'] ?? 2);
const SEED = Number(process.env['NYDUS_CACHE_SEED'] ?? 1);
const FILES = 24;
const SIZE = 1_500_000;
/** A full cache has nothing more to lose: it is begun anew after so many kills. */
const FRESH = 5;

/** Compares all files for ever, in an order of its own; says so when one differs. What cannot be read is no matter here. */
const READER = `
n=$3
while :; do
  n=$(( (n * 7 + 3) % ${FILES} ))
  cmp -s "$1/f$n" "$2/f$n"
  case $? in 1) echo "WRONG f$n" ;; 2) sleep 0.02 ;; esac
done`;

class Reader {
  readonly #child: ChildProcess;
  output = '';

  constructor(tree: string, mountpoint: string, start: number) {
    this.#child = spawn('sh', ['-c', READER, 'reader', tree, mountpoint, String(start)], {
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    });
    this.#child.stdout?.on('data', (piece: Buffer) => (this.output += piece.toString()));
  }

  async end(): Promise<void> {
    const closed = once(this.#child, 'close');
    process.kill(-(this.#child.pid ?? 0), 'SIGKILL');
    await closed;
  }
}

interface Member {
  daemon: Daemon;
  readers: Reader[];
}

describe('nydusd: kill -9 on a shared cache', { skip: firstReason(requireFuse(), requireRoot()) }, () => {
  for (const version of ['5', '6']) {
    it(`two daemons on one cache are killed ${KILLS} times: no reader sees a wrong byte (v${version})`, async (t) => {
      const dir = tempDir(t);
      const [tree, blobs, bootstrap] = [join(dir, 'tree'), join(dir, 'blobs'), join(dir, 'boot')];
      mkdirSync(tree);
      mkdirSync(blobs);
      for (let n = 0; n < FILES; n++) writeFileSync(join(tree, `f${n}`), noise(`kill ${n}`, SIZE));
      const args = ['create', '-v', version, '--chunk-size', '0x10000', '--compressor', 'zstd'];
      nydusImage([...args, '--blob-dir', blobs, '-B', bootstrap, tree]);
      const cache = join(dir, 'cache');
      let random = SEED;
      const next = (below: number): number => {
        random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
        return Math.floor((random / 2 ** 32) * below);
      };
      const startMember = async (n: number): Promise<Member> => {
        const config = localConfig(blobs, cache, { amplify_io: 0 });
        const daemon = await startDaemon({ workDir: join(dir, `daemon-${n}`), bootstrap, config });
        return { daemon, readers: [0, 1].map((at) => new Reader(tree, daemon.mountpoint, n * 11 + at * 5)) };
      };
      const kill = async ({ daemon, readers }: Member): Promise<void> => {
        assert.equal(await daemon.stop('SIGKILL'), 'SIGKILL');
        for (const reader of readers) await reader.end();
        assert.deepEqual(readers.map(({ output }) => output).join(''), '');
        assert.doesNotMatch(daemon.log, /ERROR|is damaged|digest/);
        await daemon[Symbol.asyncDispose]();
      };
      const check = async (): Promise<number> => {
        const opened = openBootstrap(bootstrap);
        const results = await verifyCache(opened, cache, listCache(cache), { logger: silentLogger });
        opened.close();
        for (const { damaged, problem } of results)
          assert.deepEqual({ damaged, problem }, { damaged: 0, problem: undefined });
        return results.reduce((sum, { checked }) => sum + checked, 0);
      };
      const members: (Member | undefined)[] = [undefined, undefined];
      let checked = 0;
      try {
        for (let kills = 0; kills < KILLS;) {
          for (const n of [0, 1]) members[n] ??= await startMember(n);
          await sleep(next(900));
          const victim = next(2);
          const member = members[victim];
          assert.ok(member !== undefined);
          members[victim] = undefined;
          await kill(member);
          checked += await check();
          if (++kills % FRESH !== 0) continue;
          const other = members[1 - victim];
          members[1 - victim] = undefined;
          if (other !== undefined) await kill(other);
          kills++;
          checked += await check();
          rmSync(cache, { recursive: true });
        }
      } finally {
        for (const member of members) if (member !== undefined) await kill(member);
      }
      t.diagnostic(`${checked} chunks that the map has were compared`);
      await using last = await startDaemon({
        workDir: join(dir, 'daemon-0'),
        bootstrap,
        config: localConfig(blobs, cache),
      });
      const reader = spawn('diff', ['-r', tree, last.mountpoint], { stdio: 'ignore' });
      assert.deepEqual(await once(reader, 'close'), [0, null]);
    });
  }
});
