// Blobs, manifests and tags of the embedded registry, as files below one directory. Layout (our own):
// blobs/<sha256 hex>, repositories/<name>/{_blobs/<hex>,_manifests/<hex>,_tags/<tag>,_referrers/<hex>/<hex>}, uploads/<id>.
import { createHash, randomUUID } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import type { Hash } from 'node:crypto';
import { dirname, join } from 'node:path';

/** A manifest as it was pushed. */
export interface StoredManifest {
  mediaType: string;
  digest: string;
  bytes: Buffer;
}

/** What the referrers list shows of one manifest. */
export interface StoredReferrer {
  mediaType: string;
  digest: string;
  size: number;
  artifactType?: string;
  annotations?: unknown;
}

/** One upload under way. */
export interface Upload {
  id: string;
  repository: string;
  path: string;
  fd: number;
  size: number;
  hash: Hash;
}

const hexOf = (digest: string): string => digest.slice('sha256:'.length);

/** Write through a temporary name: a reader never sees half a file. */
function writeWhole(path: string, bytes: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  const draft = `${path}.${randomUUID()}.tmp`;
  writeFileSync(draft, bytes);
  renameSync(draft, path);
}

/** Digests are `sha256:` only; callers check names, tags and digests before they come here. */
export class RegistryStore {
  readonly #dir: string;
  readonly #uploads = new Map<string, Upload>();

  constructor(dir: string) {
    this.#dir = dir;
    // uploads of a registry that was killed cannot go on: their digest state is gone
    rmSync(join(dir, 'uploads'), { recursive: true, force: true });
    for (const folder of ['blobs', 'repositories', 'uploads'])
      mkdirSync(join(dir, folder), { recursive: true });
  }

  #repository(name: string, ...parts: string[]): string {
    return join(this.#dir, 'repositories', name, ...parts);
  }

  #blobPath(digest: string): string {
    return join(this.#dir, 'blobs', hexOf(digest));
  }

  /** Path and size of a blob that a repository has. */
  blob(repository: string, digest: string): { path: string; size: number } | undefined {
    if (!existsSync(this.#repository(repository, '_blobs', hexOf(digest)))) return undefined;
    const path = this.#blobPath(digest);
    const stat = statSync(path, { throwIfNoEntry: false });
    return stat === undefined ? undefined : { path, size: stat.size };
  }

  /** Make a blob of one repository one of another. @returns false when `from` does not have it */
  mount(from: string, repository: string, digest: string): boolean {
    if (this.blob(from, digest) === undefined) return false;
    this.#link(repository, digest);
    return true;
  }

  #link(repository: string, digest: string): void {
    writeWhole(this.#repository(repository, '_blobs', hexOf(digest)), '');
  }

  removeBlob(repository: string, digest: string): boolean {
    if (this.blob(repository, digest) === undefined) return false;
    rmSync(this.#repository(repository, '_blobs', hexOf(digest)));
    return true;
  }

  startUpload(repository: string): Upload {
    const id = randomUUID();
    const path = join(this.#dir, 'uploads', id);
    const upload = { id, repository, path, fd: openSync(path, 'wx'), size: 0, hash: createHash('sha256') };
    this.#uploads.set(id, upload);
    return upload;
  }

  upload(repository: string, id: string): Upload | undefined {
    const upload = this.#uploads.get(id);
    return upload?.repository === repository ? upload : undefined;
  }

  append(upload: Upload, piece: Uint8Array): void {
    for (let at = 0; at < piece.length;) at += writeSync(upload.fd, piece, at, piece.length - at);
    upload.hash.update(piece);
    upload.size += piece.length;
  }

  /** End an upload. @returns the digest of what came; the blob is kept only when it is the expected one */
  finishUpload(upload: Upload, expected: string): string {
    const digest = `sha256:${upload.hash.digest('hex')}`;
    closeSync(upload.fd);
    this.#uploads.delete(upload.id);
    if (digest !== expected) {
      rmSync(upload.path, { force: true });
      return digest;
    }
    renameSync(upload.path, this.#blobPath(digest));
    this.#link(upload.repository, digest);
    return digest;
  }

  cancelUpload(upload: Upload): void {
    closeSync(upload.fd);
    this.#uploads.delete(upload.id);
    rmSync(upload.path, { force: true });
  }

  /** @param reference a tag or a digest */
  manifest(repository: string, reference: string): StoredManifest | undefined {
    const digest = reference.startsWith('sha256:') ? reference : this.#tagged(repository, reference);
    if (digest === undefined) return undefined;
    const path = this.#repository(repository, '_manifests', hexOf(digest));
    if (!existsSync(path)) return undefined;
    return { mediaType: readFileSync(path, 'utf8'), digest, bytes: readFileSync(this.#blobPath(digest)) };
  }

  #tagged(repository: string, tag: string): string | undefined {
    const path = this.#repository(repository, '_tags', tag);
    return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  }

  /** @param referrer what the subject's list shows of it, when it has a subject */
  putManifest(
    repository: string,
    manifest: StoredManifest,
    tag: string | undefined,
    referrer?: { subject: string; entry: StoredReferrer },
  ): void {
    writeWhole(this.#blobPath(manifest.digest), manifest.bytes);
    writeWhole(this.#repository(repository, '_manifests', hexOf(manifest.digest)), manifest.mediaType);
    if (referrer !== undefined) {
      const path = this.#repository(
        repository,
        '_referrers',
        hexOf(referrer.subject),
        hexOf(manifest.digest),
      );
      writeWhole(path, JSON.stringify(referrer.entry));
    }
    if (tag !== undefined) writeWhole(this.#repository(repository, '_tags', tag), manifest.digest);
  }

  /** Remove a tag, or a manifest with every tag that names it. */
  removeManifest(repository: string, reference: string): boolean {
    if (!reference.startsWith('sha256:')) {
      if (this.#tagged(repository, reference) === undefined) return false;
      rmSync(this.#repository(repository, '_tags', reference));
      return true;
    }
    const path = this.#repository(repository, '_manifests', hexOf(reference));
    if (!existsSync(path)) return false;
    rmSync(path);
    for (const tag of this.tags(repository) ?? []) {
      if (this.#tagged(repository, tag) === reference) rmSync(this.#repository(repository, '_tags', tag));
    }
    return true;
  }

  /** Tags in order, or undefined when there is no such repository. */
  tags(repository: string): string[] | undefined {
    if (!existsSync(this.#repository(repository, '_manifests'))) return undefined;
    const dir = this.#repository(repository, '_tags');
    const names = existsSync(dir) ? readdirSync(dir) : [];
    return names.filter((name) => !name.endsWith('.tmp')).toSorted();
  }

  referrers(repository: string, subject: string): StoredReferrer[] {
    const dir = this.#repository(repository, '_referrers', hexOf(subject));
    if (!existsSync(dir)) return [];
    return readdirSync(dir)
      .filter((hex) => existsSync(this.#repository(repository, '_manifests', hex)))
      .toSorted()
      .map((hex) => JSON.parse(readFileSync(join(dir, hex), 'utf8')) as StoredReferrer);
  }

  /** Names of repositories in order. */
  repositories(): string[] {
    const root = join(this.#dir, 'repositories');
    return readdirSync(root, { recursive: true })
      .map(String)
      .filter((path) => path.endsWith('/_manifests'))
      .map((path) => path.slice(0, -'/_manifests'.length))
      .toSorted();
  }

  close(): void {
    for (const upload of this.#uploads.values()) this.cancelUpload(upload);
  }
}
