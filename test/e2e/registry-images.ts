// What tests of nydusify with a registry share: a registry in this process, images put into it and taken out.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fixedCredentials } from '../../src/registry/credentials.ts';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryServer, type RegistryServerOptions } from '../../src/registry/server/server.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import { tempDir } from '../support/golden.ts';
import type { AfterHook } from '../support/temporary.ts';
import type { Descriptor, Layout, Manifest } from './nydusify-sample.ts';

export const USER = { username: 'alice', password: 'pa:ss-w0rd' };

/** A registry that ends with the test. */
export async function serve(
  t: AfterHook,
  options: Partial<RegistryServerOptions> = {},
): Promise<RegistryServer> {
  const server = await RegistryServer.start({ dir: join(tempDir(t), 'store'), ...options });
  t.after(() => server.close());
  return server;
}

/** Use a repository with our client. */
export async function inRepository<T>(
  host: string,
  name: string,
  use: (repository: Repository) => Promise<T>,
): Promise<T> {
  const transport = new RegistryTransport({ host, plainHttp: true, credentials: fixedCredentials(USER) });
  try {
    return await use(new Repository(transport, name));
  } finally {
    await transport.close();
  }
}

/** Put an image of a layout into a repository. */
export function pushImage(
  layout: Layout,
  manifest: Descriptor,
  host: string,
  name: string,
  tag: string,
): Promise<unknown> {
  return inRepository(host, name, async (repository) => {
    const bytes = layout.read(manifest);
    const { config, layers } = JSON.parse(bytes.toString()) as Manifest;
    for (const part of [config, ...layers]) await repository.pushBytes(layout.read(part));
    await repository.putManifest(manifest.mediaType, bytes, tag);
  });
}

/** Digest of what a tag names. */
export function digestOf(host: string, name: string, tag = '1.0'): Promise<string> {
  return inRepository(host, name, async (repository) => (await repository.manifest(tag)).digest);
}

/** A manifest or index as JSON. */
export function documentOf<T>(host: string, name: string, reference: string): Promise<T> {
  return inRepository(
    host,
    name,
    async (repository) => JSON.parse((await repository.manifest(reference)).bytes.toString()) as T,
  );
}

/** A blob as a whole. */
export function blobOf(host: string, name: string, { digest, size }: Descriptor): Promise<Buffer> {
  return inRepository(host, name, async (repository) => {
    const pieces: Uint8Array[] = [];
    for await (const piece of repository.blob(digest, size)) pieces.push(piece);
    return Buffer.concat(pieces);
  });
}

/** Copy an image out of a registry into a layout of blobs. */
export async function pullImage(host: string, name: string, tag: string, layout: string): Promise<Manifest> {
  const manifest = await documentOf<Manifest>(host, name, tag);
  mkdirSync(join(layout, 'blobs/sha256'), { recursive: true });
  for (const part of [manifest.config, ...manifest.layers])
    writeFileSync(join(layout, 'blobs/sha256', part.digest.slice(7)), await blobOf(host, name, part));
  return manifest;
}
