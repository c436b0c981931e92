// An image that a command looks at or mounts: where its documents come from, and where nydusd finds its blobs.
// Source: nydus-image-and-nydusify.md 8.3, 9.3.
import { createWriteStream } from 'node:fs';
import { mkdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { BackendSection } from '../../convert/mount/nydusd.ts';
import { Annotation, hexOf, MediaType } from '../../convert/oci.ts';
import { openLocalSource } from '../../convert/open-source.ts';
import type { ParsedImage } from '../../convert/check/parsed-image.ts';
import type { ImageSource } from '../../convert/source.ts';
import { environmentProxy } from '../../registry/environment-proxy.ts';
import { apiHost, formatReference, parseReference, type Reference } from '../../registry/reference.ts';
import type { RegistryTransport } from '../../registry/transport.ts';
import { readBackend, type BackendChoice } from './backend-flags.ts';
import { caFiles } from './ca-files.ts';
import type { NydusifyContext } from './context.ts';
import { openRegistrySource, openTransport } from './registry-client.ts';

/** An opened image; close its source. */
export interface ImageSide {
  /** full name */
  reference: string;
  source: ImageSource;
  /** undefined: the image is on disk */
  transport: RegistryTransport | undefined;
  insecure: boolean;
  /** directory with the blobs of an OCI layout */
  blobDir: string | undefined;
  /** where blobs are instead of beside the manifest */
  backend: BackendChoice | undefined;
}

/** Open what `--<side>`, `--<side>-archive` and `--<side>-insecure` name. @param backendPrefix of the backend's flags */
export async function openSide(
  ctx: NydusifyContext,
  side: 'source' | 'target',
  backendPrefix: string,
): Promise<ImageSide> {
  const { values } = ctx;
  const reference = formatReference(parseReference(values.text(side) ?? ''));
  const insecure = values.on(`${side}-insecure`);
  const backend = readBackend(values, backendPrefix);
  const path = values.text(`${side}-archive`);
  if (path !== undefined && path !== '') {
    const source = await openLocalSource(path, reference);
    const dir = resolve(path, 'blobs/sha256');
    const isLayout = (await stat(dir).catch(() => undefined))?.isDirectory() === true;
    return {
      reference,
      source,
      transport: undefined,
      insecure,
      backend,
      blobDir: isLayout ? dir : undefined,
    };
  }
  const transport = await openTransport(ctx, reference, { insecure });
  const source = await openRegistrySource(transport, reference);
  return { reference, source, transport, insecure, backend, blobDir: undefined };
}

/**
 * The proxy that the environment names, as nydusd's configuration has it. Like upstream, HTTP_PROXY serves for https as well; what
 * NO_PROXY excludes, and this machine, are asked directly.
 */
function proxySection(env: NydusifyContext['env'], scheme: string, host: string): object | undefined {
  const https = env['HTTPS_PROXY'] ?? env['https_proxy'] ?? env['HTTP_PROXY'] ?? env['http_proxy'];
  const url = environmentProxy({ ...env, HTTPS_PROXY: https })(new URL(`${scheme}://${host}/`));
  return url === undefined ? undefined : { url, fallback: true, ping_url: '' };
}

/** The registry of a reference as a backend. */
async function registrySection(
  ctx: NydusifyContext,
  side: ImageSide,
  reference: Reference,
  scheme: string,
): Promise<BackendSection> {
  const { DockerCredentials } = await import('../../registry/credentials.ts');
  const found = await new DockerCredentials({ env: ctx.env as NodeJS.ProcessEnv }).lookup(reference.host);
  const { username = '', password = '' } = (found ?? {}) as { username?: string; password?: string };
  const proxy = proxySection(ctx.env, scheme, apiHost(reference.host));
  const ca = scheme === 'https' ? caFiles(ctx.env) : [];
  return {
    type: 'registry',
    config: {
      scheme,
      host: apiHost(reference.host),
      repo: reference.repository,
      ...(username === '' || password === ''
        ? {}
        : { auth: Buffer.from(`${username}:${password}`).toString('base64') }),
      skip_verify: side.insecure,
      ...(ca.length === 0 ? {} : { ca_cert_files: ca }),
      ...(proxy === undefined ? {} : { proxy }),
    },
  };
}

/** Blobs out of an archive as files named by their ids. */
async function localSection(
  image: ParsedImage,
  source: ImageSource,
  dir: string,
  signal: AbortSignal,
): Promise<BackendSection> {
  await mkdir(dir, { recursive: true });
  for (const layer of image.manifest.layers) {
    if (layer.mediaType !== MediaType.nydusBlob) continue;
    const file = createWriteStream(join(dir, hexOf(layer.digest)));
    await pipeline(source.layer(layer).open(signal), file, { signal });
  }
  return { type: 'localfs', config: { dir: resolve(dir) } };
}

/** Where nydusd finds the blobs of an image. @param dir for blobs that must be taken out of an archive */
export async function backendSection(
  ctx: NydusifyContext,
  side: ImageSide,
  image: ParsedImage,
  dir: string,
): Promise<BackendSection> {
  if (side.backend !== undefined) return side.backend;
  if (side.transport !== undefined)
    return registrySection(ctx, side, parseReference(side.reference), side.transport.scheme);
  if (side.blobDir !== undefined) return { type: 'localfs', config: { dir: side.blobDir } };
  return localSection(image, side.source, dir, ctx.signal);
}

/** Old images, and those of version 5, are only safe when the daemon validates digests. */
export function wantsValidation({ manifest, manifestJson }: ParsedImage): boolean {
  const own = manifestJson['annotations'] as Record<string, unknown> | undefined;
  const version = manifest.layers.at(-1)?.annotations?.[Annotation.fsVersion] ?? own?.[Annotation.fsVersion];
  return version === undefined || version === '5';
}
