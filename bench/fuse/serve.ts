// Mounts an image with FuseSession and nothing else of the daemon, for benchmarks and profiles of the serving path.
// usage: node bench/fuse/serve.ts BOOTSTRAP BLOB_DIR CACHE_DIR MOUNTPOINT [THREADS]; ends on SIGTERM or SIGINT.
import { mkdirSync } from 'node:fs';
import { LOG_LEVELS, type Logger } from '../../src/base/log.ts';
import { exitNow } from '../../src/native/process.ts';
import { RafsInstance } from '../../src/rafs/instance.ts';
import { FuseSession } from '../../src/serve/fuse/session.ts';
import { parseConfig } from '../../src/storage/config-parse.ts';

/** Prints levels up to the one given. */
function stderrLogger(level: (typeof LOG_LEVELS)[number]): Logger & { level: string } {
  const emit = (name: (typeof LOG_LEVELS)[number]) => (message: string) => {
    if (LOG_LEVELS.indexOf(name) <= LOG_LEVELS.indexOf(level)) process.stderr.write(`${name} ${message}\n`);
  };
  return {
    level,
    error: emit('error'),
    warn: emit('warn'),
    info: emit('info'),
    debug: emit('debug'),
    trace: emit('trace'),
  };
}

const [bootstrap, blobDir, cacheDir, mountpoint, threads = '4', level = 'info'] = process.argv.slice(2);
if (bootstrap === undefined || blobDir === undefined || cacheDir === undefined || mountpoint === undefined) {
  process.stderr.write('usage: serve.ts BOOTSTRAP BLOB_DIR CACHE_DIR MOUNTPOINT [THREADS] [LEVEL]\n');
  process.exit(2);
}
const logger = stderrLogger(level as (typeof LOG_LEVELS)[number]);
mkdirSync(cacheDir, { recursive: true });
const { config } = parseConfig(
  JSON.stringify({
    version: 2,
    backend: { type: 'localfs', localfs: { dir: blobDir } },
    cache: { type: 'blobcache', filecache: { work_dir: cacheDir } },
    rafs: { mode: 'direct', enable_xattr: true },
  }),
);
const session = await FuseSession.mount({
  mountpoint,
  threads: Number(threads),
  serveOpen: false,
  hold: true,
  logger,
});
const instance = await RafsInstance.open({ bootstrap, config, id: 'bench', logger });
await session.attach(
  '/',
  { kind: 'rafs', instance },
  {
    enableXattr: true,
    mountedAtSec: Math.floor(Date.now() / 1000),
    accounting: { files: false, pattern: false, latest: false },
  },
);
process.stdout.write('mounted\n');

async function end(): Promise<void> {
  await session.unmount();
  await instance.close();
  if (process.env['NYDUS_BENCH_PROFILE'] === undefined) exitNow(0);
  process.exit(0);
}
process.once('SIGTERM', () => void end());
process.once('SIGINT', () => void end());
void session.ended.then(end);
