import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { openImage } from '../format/detect.ts';
import { goldenPath, skipUnlessGolden } from '../../test/support/golden.ts';
import { superMeta } from './super-meta.ts';

// Bodies of golden api/idle-and-pseudo-mounts.jsonl, exchanges 146 and 147.
const CASES = {
  'tiny-v5-zstd-blake3':
    '{"magic":1380009555,"version":1280,"sb_size":8192,"root_inode":0,"chunk_size":1048576,"batch_size":0,"inodes_count":6,"flags":{"bits":148},"inode_table_entries":7,"inode_table_offset":8192,"blob_table_size":72,"blob_table_offset":8224,"extended_blob_table_offset":8296,"extended_blob_table_entries":1,"blob_device_table_count":0,"blob_device_table_offset":0,"prefetch_table_offset":8224,"prefetch_table_entries":0,"attr_timeout":{"secs":4294967296,"nanos":0},"entry_timeout":{"secs":4294967296,"nanos":0},"is_chunk_dict":false,"meta_blkaddr":0,"root_nid":0,"chunk_table_offset":0,"chunk_table_size":0}',
  'tiny-v6-zstd-blake3':
    '{"magic":3774210530,"version":1536,"sb_size":0,"root_inode":0,"chunk_size":1048576,"batch_size":0,"inodes_count":7,"flags":{"bits":16777364},"inode_table_entries":0,"inode_table_offset":0,"blob_table_size":256,"blob_table_offset":4096,"extended_blob_table_offset":0,"extended_blob_table_entries":0,"blob_device_table_count":1,"blob_device_table_offset":1408,"prefetch_table_offset":0,"prefetch_table_entries":0,"attr_timeout":{"secs":4294967296,"nanos":0},"entry_timeout":{"secs":4294967296,"nanos":0},"is_chunk_dict":false,"meta_blkaddr":2,"root_nid":128,"chunk_table_offset":16384,"chunk_table_size":160}',
};

describe('superMeta', () => {
  for (const [name, body] of Object.entries(CASES)) {
    const skip = skipUnlessGolden('cases', name, 'bootstrap');
    it(`superMeta: shows ${name} as golden/api does`, { skip }, () => {
      const image = openImage(readFileSync(goldenPath('cases', name, 'bootstrap') ?? ''));
      assert.equal(JSON.stringify(superMeta(image)), body);
    });
  }
});
