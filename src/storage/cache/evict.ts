// Whole blobs leave the cache directory: those used least recently first, never one that is in use or pinned.
import { messageOf } from '../../base/errors.ts';
import { deleteBlob, listCache, whileUnused, type CachedBlob } from './cache-dir.ts';

export interface EvictOptions {
  /** bytes the directory may have afterwards */
  maxBytes: number;
  /** bytes down to which it is cleared up once it has more than `maxBytes`; default: `maxBytes` */
  goalBytes?: number;
  /** say what would be done */
  dryRun?: boolean;
  /** told before a blob is deleted, while nobody can open it */
  deleting?: (blobId: string) => void;
}

export interface KeptBlob {
  blobId: string;
  bytes: number;
  reason: string;
}

export interface EvictResult {
  /** bytes before and after */
  before: number;
  after: number;
  evicted: { blobId: string; bytes: number }[];
  /** blobs that would have had to go, and why they did not */
  kept: KeptBlob[];
}

/** Delete blobs until the directory is small enough. */
export function evictBlobs(workDir: string, options: EvictOptions): EvictResult {
  const blobs = listCache(workDir);
  const before = blobs.reduce((sum, { bytes }) => sum + bytes, 0);
  const result: EvictResult = { before, after: before, evicted: [], kept: [] };
  if (before <= options.maxBytes) return result;
  const goal = options.goalBytes ?? options.maxBytes;
  for (const blob of blobs) {
    if (result.after <= goal) break;
    const reason = evict(workDir, blob, options);
    const { blobId, bytes } = blob;
    if (reason !== undefined) result.kept.push({ blobId, bytes, reason });
    else {
      result.evicted.push({ blobId, bytes });
      result.after -= bytes;
    }
  }
  return result;
}

/** @returns why it stays */
function evict(workDir: string, blob: CachedBlob, options: EvictOptions): string | undefined {
  if (blob.pins.includes('kernel')) return 'mounted by the kernel';
  if (blob.pins.includes('user')) return 'pinned';
  try {
    const done = whileUnused(workDir, blob, () => {
      if (options.dryRun === true) return true;
      options.deleting?.(blob.blobId);
      deleteBlob(workDir, blob);
      return true;
    });
    return done === true ? undefined : 'in use';
  } catch (error) {
    return messageOf(error);
  }
}
