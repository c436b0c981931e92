// The file tree in memory while an image is built or merged. No byte layout here: what the encoders need of a node, a chunk
// or a blob is declared in format/writer-input.ts, and the tree adds where things came from.
import { plainNode, type WriterBlob, type WriterChunk, type WriterNode } from '../format/writer-input.ts';

/** One chunk as the builder knows it; shared by all files that contain it, except `fileOffset`. */
export type TreeChunk = WriterChunk;

/** One row of the blob table while building. */
export type TreeBlob = WriterBlob;

/** One name in one directory. Numbers (index, ino, nlink) are assigned before writing (rafs-metadata 2.1, 5.1, 5.2). */
export interface TreeNode extends WriterNode {
  children?: TreeNode[];
  /** identity for hard links: same layer, source inode and device = same file */
  layer: number;
  sourceIno: number;
  sourceDev: number;
  /** path in the source file system, for directory sources whose data is read later */
  sourcePath?: Buffer;
  /** true when the data comes from a parent image and is not stored again */
  inherited?: boolean;
}

/** A node with everything but name and mode at its default, from no host directory (rafs-metadata 5.1). Its numbers come later. */
export function newNode(name: Buffer, mode: number, layer: number): TreeNode {
  return { ...plainNode(name, mode, 0), layer, sourceIno: 0, sourceDev: -1 };
}
