// Where the blobs of an image go that do not go into the image: a storage backend, as nydusd reads it.
// Source: nydus-image-and-nydusify.md 9.1, "Backend uploads".

/** Takes blobs by id. What is there under its id is the blob. */
export interface BlobStore {
  /** for messages */
  readonly name: string;
  /** is a blob of that size there? */
  has(id: string, size: number, signal: AbortSignal): Promise<boolean>;
  /** Store a file; it is there under its id when this resolves, or not at all. The file may be gone then. */
  put(id: string, file: string, size: number, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}
