// The superblock as `GET /api/v1/daemon/backend` shows it: one flat object for both versions; what a version lacks is 0.
// Source: nydusd.md 5.7, golden/api.
import { viewOf } from '../base/bytes.ts';
import type { RafsImage } from '../format/image.ts';
import { superblock5 } from '../format/rafs5/layout.ts';
import {
  DEVICE_SLOTS_OFFSET,
  EROFS_SUPER_OFFSET,
  EXTENDED_SUPER_OFFSET,
  extendedSuper6,
  superblock6,
} from '../format/rafs6/layout.ts';

const V6_VERSION = 0x600;
const PREFETCH_ENTRY_SIZE = 4;
/** Entries and attributes of RAFS never change: the kernel may keep them this long. */
const FOREVER = { secs: 4294967296, nanos: 0 };

/** Facts of the superblock of an opened image. */
export function superMeta(image: Pick<RafsImage, 'super' | 'bytes'>): Record<string, unknown> {
  const view = viewOf(image.bytes);
  const facts = image.super.version === 5 ? facts5(view) : facts6(view);
  return {
    magic: facts.magic,
    version: facts.version,
    sb_size: facts.sb_size,
    root_inode: 0,
    chunk_size: image.super.chunkSize,
    batch_size: 0,
    inodes_count: facts.inodes_count,
    flags: { bits: facts.flags },
    inode_table_entries: facts.inode_table_entries,
    inode_table_offset: facts.inode_table_offset,
    blob_table_size: facts.blob_table_size,
    blob_table_offset: facts.blob_table_offset,
    extended_blob_table_offset: facts.extended_blob_table_offset,
    extended_blob_table_entries: facts.extended_blob_table_entries,
    blob_device_table_count: facts.blob_device_table_count,
    blob_device_table_offset: facts.blob_device_table_offset,
    prefetch_table_offset: facts.prefetch_table_offset,
    prefetch_table_entries: facts.prefetch_table_entries,
    attr_timeout: FOREVER,
    entry_timeout: FOREVER,
    is_chunk_dict: false,
    meta_blkaddr: facts.meta_blkaddr,
    root_nid: facts.root_nid,
    chunk_table_offset: facts.chunk_table_offset,
    chunk_table_size: facts.chunk_table_size,
  };
}

const NOTHING = {
  sb_size: 0,
  inode_table_entries: 0,
  inode_table_offset: 0,
  extended_blob_table_offset: 0,
  extended_blob_table_entries: 0,
  blob_device_table_count: 0,
  blob_device_table_offset: 0,
  meta_blkaddr: 0,
  root_nid: 0,
  chunk_table_offset: 0,
  chunk_table_size: 0,
};

type Facts = typeof NOTHING &
  Record<
    | 'magic'
    | 'version'
    | 'inodes_count'
    | 'flags'
    | 'blob_table_size'
    | 'blob_table_offset'
    | 'prefetch_table_offset'
    | 'prefetch_table_entries',
    number
  >;

function facts5(view: DataView): Facts {
  const sb = superblock5.read(view, 0);
  return {
    ...NOTHING,
    magic: sb.magic,
    version: sb.fsVersion,
    sb_size: sb.sbSize,
    inodes_count: sb.inodesCount,
    flags: sb.flags,
    inode_table_entries: sb.inodeTableEntries,
    inode_table_offset: sb.inodeTableOffset,
    blob_table_size: sb.blobTableSize,
    blob_table_offset: sb.blobTableOffset,
    extended_blob_table_offset: sb.extendedBlobTableOffset,
    extended_blob_table_entries: sb.extendedBlobTableEntries,
    prefetch_table_offset: sb.prefetchTableOffset,
    prefetch_table_entries: sb.prefetchTableEntries,
  };
}

function facts6(view: DataView): Facts {
  const sb = superblock6.read(view, EROFS_SUPER_OFFSET);
  const ext = extendedSuper6.read(view, EXTENDED_SUPER_OFFSET);
  return {
    ...NOTHING,
    magic: sb.magic,
    version: V6_VERSION,
    inodes_count: sb.inos,
    flags: ext.flags,
    blob_table_size: ext.blobTableSize,
    blob_table_offset: ext.blobTableOffset,
    blob_device_table_count: sb.extraDevices,
    blob_device_table_offset: DEVICE_SLOTS_OFFSET,
    prefetch_table_offset: ext.prefetchTableOffset,
    prefetch_table_entries: ext.prefetchTableSize / PREFETCH_ENTRY_SIZE,
    meta_blkaddr: sb.metaBlkaddr,
    root_nid: sb.rootNid,
    chunk_table_offset: ext.chunkTableOffset,
    chunk_table_size: ext.chunkTableSize,
  };
}
