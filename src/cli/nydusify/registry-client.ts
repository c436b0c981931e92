// The way to a registry as all commands take it: credentials of docker's configuration, loaded only where there is one.
// Source: nydus-image-and-nydusify.md 8.1.
import { parseReference } from '../../registry/reference.ts';
import type { RegistryTransport } from '../../registry/transport.ts';
import type { ImageSource } from '../../convert/source.ts';
import type { NydusifyContext } from './context.ts';

/** Open the way to the registry of a reference. */
export async function openTransport(
  ctx: NydusifyContext,
  reference: string,
  options: { insecure: boolean; plainHttp?: boolean },
): Promise<RegistryTransport> {
  const [{ RegistryTransport }, { DockerCredentials }, { environmentProxy }] = await Promise.all([
    import('../../registry/transport.ts'),
    import('../../registry/credentials.ts'),
    import('../../registry/environment-proxy.ts'),
  ]);
  return new RegistryTransport({
    host: parseReference(reference).host,
    plainHttp: options.plainHttp === true,
    insecure: options.insecure,
    systemCa: true,
    credentials: new DockerCredentials({ env: ctx.env as NodeJS.ProcessEnv }),
    proxyFor: environmentProxy(ctx.env),
    logger: ctx.log,
  });
}

/** An image in a registry as a source; closing it closes the transport. */
export async function openRegistrySource(
  transport: RegistryTransport,
  reference: string,
): Promise<ImageSource> {
  const { registrySource } = await import('../../convert/source-registry.ts');
  return registrySource(parseReference(reference), transport);
}
