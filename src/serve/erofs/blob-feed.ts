// What gives the kernel the data of blobs: cache files with pre-content marks (Feed), or flat files of a FUSE mount (FlatFeed).
import type { BlobUser } from './fed-blob.ts';

/** What was counted since the start. */
export interface FeedCounts {
  /** requests of the kernel that were answered */
  events: number;
  /** answered at once: everything was local */
  allowed: number;
  /** failed: the reader got EIO */
  denied: number;
  /** bytes that readers asked about */
  bytes: number;
}

export interface BlobFeed {
  /** Take care of the blob of an image; before the kernel opens its device. */
  add(user: BlobUser): void;
  /** An image is no longer mounted. */
  remove(user: BlobUser): void;
  /** Path that the kernel opens as the device of a blob. */
  deviceOf(user: BlobUser): string;
  /** Resolves when the kernel may open devices. */
  readonly ready: Promise<void>;
}
