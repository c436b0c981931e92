// One repository of a registry: manifests, blobs, tags, referrers. Everything that is read is verified.
// Source: OCI distribution spec 1.1.
import { FormatError, IntegrityError, messageOf, RegistryError } from '../base/errors.ts';
import { MAX_LIST_PAGES, MAX_MANIFEST_SIZE, MAX_REGISTRY_JSON } from '../base/limits.ts';
import type { HttpAnswer } from './http.ts';
import { mediaTypeOf, parseIndex } from './manifest.ts';
import type { Descriptor, Index } from './manifest.ts';
import { MANIFEST_TYPES, OCI_INDEX } from './media-types.ts';
import { parseContentRange } from './ranges.ts';
import { isDigest } from './reference.ts';
import type { RegistryTransport } from './transport.ts';
import { BlobUpload, pushChunks, pushWhole } from './upload.ts';
import type { BlobSource, PushEnd, PushOptions, UploadOptions } from './upload.ts';
import { sha256Of, Verifier } from './verify.ts';

/** A manifest or index as the registry has it. */
export interface FetchedManifest {
  mediaType: string;
  digest: string;
  bytes: Buffer;
}

/** Times that a blob goes on after its connection broke. */
const RESUMES = 5;

/** Use one repository. The transport belongs to the caller. */
export class Repository {
  readonly name: string;
  readonly #transport: RegistryTransport;
  readonly #pull: readonly string[];
  readonly #push: readonly string[];

  constructor(transport: RegistryTransport, name: string) {
    this.#transport = transport;
    this.name = name;
    this.#pull = [`repository:${name}:pull`];
    this.#push = [`repository:${name}:pull,push`];
  }

  /**
   * A manifest or index.
   *
   * @param reference tag or digest
   * @throws RegistryError EIO   there is none, or the registry failed
   * @throws IntegrityError EIO  it is not what its digest says
   */
  async manifest(reference: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const { answer } = await this.#transport.send({
      method: 'GET',
      target: `/v2/${this.name}/manifests/${reference}`,
      scopes: this.#pull,
      headers: { accept: MANIFEST_TYPES.join(', ') },
      signal,
    });
    const said = answer.header('docker-content-digest');
    const expected = isDigest(reference) ? reference : isDigest(said) ? said : undefined;
    const bytes = await answer.bytes(MAX_MANIFEST_SIZE);
    if (expected !== undefined) {
      const verifier = new Verifier(`manifest ${this.name}:${reference}`, expected, undefined);
      verifier.add(bytes);
      verifier.finish();
    }
    return {
      mediaType: mediaTypeOf(bytes, answer.header('content-type')),
      digest: expected ?? sha256Of(bytes),
      bytes,
    };
  }

  /** Digest, size and type without the content, or undefined when there is none. */
  async findManifest(reference: string, signal?: AbortSignal): Promise<Descriptor | undefined> {
    const { answer } = await this.#transport.send({
      method: 'HEAD',
      target: `/v2/${this.name}/manifests/${reference}`,
      scopes: this.#pull,
      headers: { accept: MANIFEST_TYPES.join(', ') },
      accept: [404],
      signal,
    });
    await answer.discard();
    if (answer.status === 404) return undefined;
    const digest = isDigest(reference) ? reference : answer.header('docker-content-digest');
    const mediaType = answer.header('content-type').split(';')[0]?.trim() ?? '';
    if (isDigest(digest) && answer.contentLength !== undefined && mediaType !== '') {
      return { mediaType, digest, size: answer.contentLength };
    }
    const whole = await this.manifest(reference, signal);
    return { mediaType: whole.mediaType, digest: whole.digest, size: whole.bytes.length };
  }

  /**
   * Push a manifest or index. Where the registry does not know referrers, the fallback tag of its subject is kept.
   *
   * @param reference tag, or undefined for its digest
   * @returns its digest
   */
  async putManifest(
    mediaType: string,
    bytes: Uint8Array,
    reference?: string,
    signal?: AbortSignal,
  ): Promise<string> {
    const digest = sha256Of(bytes);
    const { answer, url } = await this.#transport.send({
      method: 'PUT',
      target: `/v2/${this.name}/manifests/${reference ?? digest}`,
      scopes: this.#push,
      headers: { 'content-type': mediaType, 'content-length': String(bytes.length) },
      body: () => bytes,
      signal,
    });
    await answer.discard();
    const said = answer.header('docker-content-digest');
    if (said !== '' && said !== digest) {
      throw new IntegrityError(
        `PUT ${url.href}: the registry stored ${said.slice(0, 100)}, ${digest} was sent`,
      );
    }
    const value = JSON.parse(Buffer.from(bytes).toString()) as { subject?: Descriptor };
    if (value.subject !== undefined && answer.header('oci-subject') === '') {
      await this.#addToFallback(
        value.subject.digest,
        { mediaType, digest, size: bytes.length },
        bytes,
        signal,
      );
    }
    return digest;
  }

  /** Remove a tag or a manifest. @returns false when there is none */
  async removeManifest(reference: string, signal?: AbortSignal): Promise<boolean> {
    const { answer } = await this.#transport.send({
      method: 'DELETE',
      target: `/v2/${this.name}/manifests/${reference}`,
      scopes: [`repository:${this.name}:delete`],
      accept: [404],
      signal,
    });
    await answer.discard();
    return answer.status !== 404;
  }

  /** Bytes of a blob, or undefined when the repository does not have it. */
  async findBlob(digest: string, signal?: AbortSignal): Promise<number | undefined> {
    const { answer, url } = await this.#transport.send({
      method: 'HEAD',
      target: `/v2/${this.name}/blobs/${digest}`,
      scopes: this.#pull,
      accept: [404],
      signal,
    });
    await answer.discard();
    if (answer.status === 404) return undefined;
    if (answer.contentLength !== undefined) return answer.contentLength;
    throw new RegistryError(
      { method: 'HEAD', url: url.href, status: answer.status, codes: [] },
      'the answer has no Content-Length',
    );
  }

  /**
   * Content of a blob. A connection that breaks is taken up again where it broke.
   *
   * @param size bytes, where the descriptor is known
   * @throws IntegrityError EIO  after the last piece: size or digest differ
   */
  async *blob(digest: string, size?: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const verifier = new Verifier(`blob ${this.name}@${digest}`, digest, size);
    for (let broken = 0; ; broken++) {
      const answer = await this.#openBlob(digest, verifier.received, signal);
      try {
        for await (const piece of answer.body()) {
          verifier.add(piece);
          yield piece;
        }
        break;
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof RegistryError) || !error.retryable || broken >= RESUMES) throw error;
        if (size !== undefined && verifier.received === size) break;
      }
    }
    verifier.finish();
  }

  async #openBlob(digest: string, start: number, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    const { answer, url } = await this.#transport.send({
      method: 'GET',
      target: `/v2/${this.name}/blobs/${digest}`,
      scopes: this.#pull,
      headers: start === 0 ? {} : { range: `bytes=${start}-` },
      signal,
    });
    if (start === 0) return answer;
    if (answer.status === 206 && parseContentRange(answer.header('content-range'))?.start === start)
      return answer;
    await answer.discard();
    throw new RegistryError(
      { method: 'GET', url: url.origin + url.pathname, status: answer.status, codes: [] },
      `the connection broke after ${start} bytes, and the registry does not go on from there`,
    );
  }

  /**
   * Bytes `start` to `end` (exclusive) of a blob. A range cannot be verified by the digest of the whole.
   *
   * @throws RegistryError EIO  the answer is not this range
   */
  async blobRange(digest: string, start: number, end: number, signal?: AbortSignal): Promise<Buffer> {
    const { answer, url } = await this.#transport.send({
      method: 'GET',
      target: `/v2/${this.name}/blobs/${digest}`,
      scopes: this.#pull,
      headers: { range: `bytes=${start}-${end - 1}` },
      signal,
    });
    const range = parseContentRange(answer.header('content-range'));
    const whole = answer.status === 200 && start === 0 && (answer.contentLength ?? Infinity) <= end;
    const length = whole ? (answer.contentLength ?? 0) : (range?.end ?? 0) - start;
    if (!whole && (answer.status !== 206 || range?.start !== start || range.end > end)) {
      await answer.discard();
      throw new RegistryError(
        { method: 'GET', url: url.origin + url.pathname, status: answer.status, codes: [] },
        `bytes ${start} to ${end} were asked for, Content-Range is ${JSON.stringify(answer.header('content-range'))}`,
      );
    }
    const bytes = await answer.bytes(end - start);
    if (bytes.length === length) return bytes;
    throw new RegistryError(
      { method: 'GET', url: url.origin + url.pathname, status: answer.status, codes: [] },
      `${bytes.length} bytes came, ${length} were announced`,
      { retryable: true },
    );
  }

  /** Push content whose digest is known; what is there already is not sent. */
  async pushBlob(source: BlobSource, options: PushOptions = {}): Promise<PushEnd> {
    if ((await this.#hasBlob(source.digest, options.signal)) === true) return 'exists';
    return pushWhole(this.#session(options), source, options);
  }

  /** Push bytes. @returns their descriptor without a media type */
  async pushBytes(bytes: Uint8Array, options: PushOptions = {}): Promise<{ digest: string; size: number }> {
    const digest = sha256Of(bytes);
    const open = (): AsyncIterable<Uint8Array> => once(bytes);
    await this.pushBlob({ digest, size: bytes.length, open }, options);
    return { digest, size: bytes.length };
  }

  /** Push a stream by chunks; its digest comes out at the end. */
  pushStream(
    source: AsyncIterable<Uint8Array>,
    options: PushOptions = {},
  ): Promise<{ digest: string; size: number }> {
    return pushChunks(this.#session(options), source, options);
  }

  /** Begin a blob whose bytes come bit by bit. */
  openUpload(options: UploadOptions = {}): BlobUpload {
    return new BlobUpload(this.#session(options), options);
  }

  /** True when the repository has the blob; asked with the right to push, which a push needs anyway. */
  async hasBlob(digest: string, signal?: AbortSignal): Promise<boolean> {
    return this.#hasBlob(digest, signal);
  }

  async #hasBlob(digest: string, signal: AbortSignal | undefined): Promise<boolean> {
    const { answer } = await this.#transport.send({
      method: 'HEAD',
      target: `/v2/${this.name}/blobs/${digest}`,
      scopes: this.#push,
      accept: [404],
      signal,
    });
    await answer.discard();
    return answer.status !== 404;
  }

  #session(options: PushOptions): Parameters<typeof pushWhole>[0] {
    return { transport: this.#transport, repository: this.name, scopes: this.#push, signal: options.signal };
  }

  /** Pages of a JSON list; the next one is named by `Link`. */
  async *#pages(
    path: string,
    signal?: AbortSignal,
  ): AsyncGenerator<{ value: unknown; bytes: Buffer } | undefined> {
    let target: string | URL = path;
    for (let page = 0; page < MAX_LIST_PAGES; page++) {
      const { answer, url } = await this.#transport.send({
        method: 'GET',
        target,
        scopes: this.#pull,
        accept: [404],
        signal,
      });
      if (answer.status === 404) {
        await answer.discard();
        yield undefined;
        return;
      }
      const bytes = await answer.bytes(MAX_REGISTRY_JSON);
      try {
        yield { value: JSON.parse(bytes.toString()), bytes };
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        throw new FormatError({ struct: 'list' }, `of ${url.pathname} is no JSON: ${messageOf(error)}`);
      }
      const next = /<([^>]+)>\s*;[^,]*\brel="?next"?/.exec(answer.header('link'))?.[1];
      if (next === undefined) return;
      target = this.#transport.resolve(next, url);
    }
  }

  /** Tags in the registry's order; none when there is no such repository. */
  async tags(signal?: AbortSignal): Promise<string[]> {
    const out: string[] = [];
    for await (const page of this.#pages(`/v2/${this.name}/tags/list`, signal)) {
      const tags = (page?.value as { tags?: unknown } | undefined)?.tags;
      if (Array.isArray(tags)) for (const tag of tags) if (typeof tag === 'string') out.push(tag);
    }
    return out;
  }

  /** Manifests whose subject is `digest`: from the API, else from the fallback tag. */
  async referrers(digest: string, artifactType?: string, signal?: AbortSignal): Promise<Descriptor[]> {
    const query = artifactType === undefined ? '' : `?${new URLSearchParams({ artifactType }).toString()}`;
    const out: Descriptor[] = [];
    let known = true;
    for await (const page of this.#pages(`/v2/${this.name}/referrers/${digest}${query}`, signal)) {
      if (page === undefined) known = false;
      else out.push(...parseIndex(page.bytes).manifests);
    }
    if (!known) out.push(...(await this.#fallback(digest, signal)).manifests);
    return artifactType === undefined ? out : out.filter((entry) => entry.artifactType === artifactType);
  }

  async #fallback(digest: string, signal: AbortSignal | undefined): Promise<Index> {
    const tag = fallbackTag(digest);
    const found = await this.findManifest(tag, signal);
    if (found === undefined) return { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] };
    return parseIndex((await this.manifest(found.digest, signal)).bytes);
  }

  async #addToFallback(
    subject: string,
    entry: Descriptor,
    bytes: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const index = await this.#fallback(subject, signal);
    if (index.manifests.some(({ digest }) => digest === entry.digest)) return;
    const value = JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>;
    const type = value['artifactType'] ?? (value['config'] as Descriptor | undefined)?.mediaType;
    const annotations = value['annotations'] as Record<string, string> | undefined;
    index.manifests.push({
      ...entry,
      ...(typeof type === 'string' ? { artifactType: type } : {}),
      ...(annotations === undefined ? {} : { annotations }),
    });
    await this.putManifest(OCI_INDEX, Buffer.from(JSON.stringify(index)), fallbackTag(subject), signal);
  }
}

/** Tag that lists the referrers of a digest where the registry has no API for it. */
export function fallbackTag(digest: string): string {
  return digest.replace(':', '-').slice(0, 128);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
