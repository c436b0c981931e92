// Where a tar reader puts file data while it parses: data is stored in the order it is given, so tar order = blob order.
// chunk-store.ts implements it.
import type { TreeNode } from '../tree/node.ts';

/**
 * Takes the data of regular files, one after the other.
 *
 * A sink pushes the chunks of a file into `node.chunks` in place, at the latest when the build asks for its end. So a hard
 * link shares data by sharing the array: `link.chunks = target.chunks`.
 */
export interface ChunkSink {
  /** Start the data of a file of `node.size` bytes; not for empty files, nor for hard links to a file already given. */
  beginFile(node: TreeNode): void;
  /**
   * The next bytes of the file; they are copied before this returns. A promise means: wait before the next call, the
   * workers are behind. undefined means: go on at once.
   */
  write(data: Uint8Array): Promise<void> | undefined;
  /** End of the file: FormatError when the bytes written are not `node.size`. */
  endFile(): Promise<void> | undefined;
}
