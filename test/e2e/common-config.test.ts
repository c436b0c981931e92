// The configuration document that operators hand around, accepted as it stands, and the older form of the mount request with a
// file of it. Source: issue 5 section 6.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { apiRequest, startDaemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';

const DOCUMENT = `{
  "device": {
    "backend": {
      // localfs, oss, or registry
      "type": "localfs",
      "config": { "dir": "/blobs", "readahead": true, "readahead_sec": 5,
        "proxy": "http://p2p-proxy:65001", "proxy_fallback": true, "proxy_ping_url": "http://p2p-proxy:40901/server/ping",
        "proxy_check_interval": 5, "timeout": 5, "connect_timeout": 5, "retry_limit": 2 }
    },
    "cache": { "type": "blobcache", "config": { "work_dir": "cache" } }
  },
  "mode": "direct", "digest_validate": false, "iostats_files": false, "enable_xattr": true,
  "fs_prefetch": { "enable": true, "threads_count": 10, "merging_size": 131072 }
}
`;

test(
  'nydusd: the common configuration with comments, mounted by the older form of the request',
  { skip: firstReason(requireFuse(), requireRoot()) },
  async (t) => {
    const work = tempDir(t);
    for (const dir of ['tree', 'blobs', 'd']) mkdirSync(join(work, dir));
    writeFileSync(join(work, 'tree/file'), Buffer.alloc(200_000, 'content '));
    nydusImage(['create', '--blob-dir', 'blobs', '--bootstrap', 'boot', 'tree'], { cwd: work });
    const cache = join(work, 'cache');
    const text = DOCUMENT.replace('"/blobs"', JSON.stringify(join(work, 'blobs')));
    writeFileSync(join(work, 'config.json'), text.replace('"cache" }', `${JSON.stringify(cache)} }`));
    await using daemon = await startDaemon({ workDir: join(work, 'd') });
    const body = JSON.stringify({
      source: join(work, 'boot'),
      fstype: 'rafs',
      mountpoint: '/sub',
      config: join(work, 'config.json'),
    });
    const mount = (): Promise<{ status: number; body: string }> =>
      apiRequest(daemon.apisock, 'PUT', '/api/v1/mount', body);
    assert.deepEqual(await mount(), { status: 204, body: '' });
    assert.equal(readFileSync(join(daemon.mountpoint, 'sub/file')).length, 200_000);
    assert.doesNotMatch(daemon.log, /unknown key/);
    // prefetch is on: everything arrives without a reader
    for (;;) {
      const metrics = (await daemon.get('/api/v1/metrics/blobcache')) as {
        prefetch_data_amount: number;
        prefetch_workers: number;
        data_all_ready: boolean;
      };
      if (metrics.data_all_ready) {
        assert.equal(metrics.prefetch_workers, 10);
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.equal(existsSync(cache), true);
    // where something is mounted, the same request mounts it anew
    assert.deepEqual(await mount(), { status: 204, body: '' });
    assert.equal(readFileSync(join(daemon.mountpoint, 'sub/file')).length, 200_000);
    assert.equal(await daemon.stop(), 0, daemon.log);
  },
);
