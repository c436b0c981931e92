// The ways of caching, each through the suite.
import { cacheSuite } from '../../test/conformance/cache-suite.ts';

for (const version of [5, 6] as const) {
  cacheSuite({
    name: `v${version} blobcache zstd`,
    version,
    compressor: 'zstd',
    config: {},
    keeps: true,
    plain: true,
  });
  cacheSuite({
    name: `v${version} blobcache lz4`,
    version,
    compressor: 'lz4_block',
    config: {},
    keeps: true,
    plain: true,
  });
  cacheSuite({
    name: `v${version} blobcache none, without amplification`,
    version,
    compressor: 'none',
    config: { rafs: { batch_size: 0 } },
    keeps: true,
    plain: true,
  });
  cacheSuite({
    name: `v${version} blobcache with validation`,
    version,
    compressor: 'zstd',
    config: { cache: { validate: true } },
    keeps: true,
    plain: true,
  });
  cacheSuite({
    name: `v${version} raw cache`,
    version,
    compressor: 'zstd',
    config: { cache: { compressed: true } },
    keeps: true,
    plain: false,
  });
}
cacheSuite({
  name: 'v5 without a cache',
  version: 5,
  compressor: 'lz4_block',
  config: {},
  keeps: false,
  plain: false,
});
cacheSuite({
  name: 'v5 without an indexed map',
  version: 5,
  compressor: 'zstd',
  config: { filecache: { disable_indexed_map: true } },
  keeps: true,
  plain: true,
});
const encryption_key = '0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20';
cacheSuite({
  name: 'v6 encrypted cache, one key',
  version: 6,
  compressor: 'zstd',
  config: { filecache: { enable_encryption: true, encryption_key } },
  keeps: true,
  plain: false,
});
cacheSuite({
  name: 'v6 encrypted cache, a key for each chunk',
  version: 6,
  compressor: 'lz4_block',
  config: { filecache: { enable_encryption: true, enable_convergent_encryption: true } },
  keeps: true,
  plain: false,
});
