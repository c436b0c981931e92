// `--blob-cache-dir`: what a node's file cache would hold for the blob, instead of the blob.
// Source: blob-and-cache.md 3.9, nydus-image-and-nydusify.md 2.5.
import { constants, rmSync } from 'node:fs';
import { rename, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { alignUp } from '../base/bytes.ts';
import { openOutput, writeParts } from './blob-output.ts';
import { sweepAbandoned, temporaryName } from './temporary-file.ts';

const CREATE = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;

/** The two cache files of one blob, under temporary names until the blob id is known. */
export class CacheOutput {
  readonly #directory: string;
  readonly #data: FileHandle;
  readonly #meta: FileHandle;
  readonly #temporary: { data: string; meta: string };
  #size = 0;

  private constructor(
    directory: string,
    data: FileHandle,
    meta: FileHandle,
    temporary: { data: string; meta: string },
  ) {
    this.#directory = directory;
    this.#data = data;
    this.#meta = meta;
    this.#temporary = temporary;
  }

  static async open(directory: string): Promise<CacheOutput> {
    sweepAbandoned(directory);
    const temporary = {
      data: temporaryName(join(directory, 'data')),
      meta: temporaryName(join(directory, 'meta')),
    };
    const data = await openOutput(temporary.data, CREATE);
    try {
      return new CacheOutput(directory, data, await openOutput(temporary.meta, CREATE), temporary);
    } catch (error) {
      await data.close();
      rmSync(temporary.data, { force: true });
      throw error;
    }
  }

  /** A chunk at its place in the uncompressed space. */
  async putChunk(chunk: Uint8Array, offset: number, aligned: boolean): Promise<void> {
    for (let done = 0; done < chunk.length;) {
      done += (await this.#data.write(chunk, done, chunk.length - done, offset + done)).bytesWritten;
    }
    this.#size = Math.max(this.#size, offset + (aligned ? alignUp(chunk.length, 4096) : chunk.length));
  }

  /** Plain compression information, padded to 4096 bytes, and its header; never called for v5. */
  async putMeta(ci: Buffer, header: Buffer): Promise<void> {
    await writeParts(this.#meta, [ci, Buffer.alloc(alignUp(ci.length, 4096) - ci.length), header]);
  }

  async publish(blobId: string | undefined): Promise<void> {
    await this.#data.truncate(this.#size);
    await this.#data.close();
    await this.#meta.close();
    if (blobId === undefined) {
      this.#remove();
      return;
    }
    await rename(this.#temporary.meta, join(this.#directory, `${blobId}.blob.meta`));
    await rename(this.#temporary.data, join(this.#directory, `${blobId}.blob.data`));
  }

  async discard(): Promise<void> {
    await this.#data.close().catch(() => {});
    await this.#meta.close().catch(() => {});
    this.#remove();
  }

  #remove(): void {
    rmSync(this.#temporary.data, { force: true });
    rmSync(this.#temporary.meta, { force: true });
  }
}
