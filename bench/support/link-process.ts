// Child process of the cold-start bench: a registry with one blob behind a link. Told by messages, so that its CPU time is not
// that of the programs that are measured.
import { readFileSync } from 'node:fs';
import { RegistryServer } from '../../src/registry/server/server.ts';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import { startDelayProxy, type DelayProxy } from '../../test/support/delay-proxy.ts';

/** What the parent asks. */
export type LinkCommand =
  | { kind: 'store'; dir: string; blobs: string[] }
  | { kind: 'link'; rttMs: number; bitsPerSecond: number }
  | { kind: 'numbers' };

/** Answer to `numbers`: since the link was opened. */
export interface LinkNumbers {
  requests: number;
  bytes: number;
  connections: number;
  /** CPU time of registry and link together, in ms: they share the machine with what is measured */
  linkCpuMs: number;
}

let server: RegistryServer | undefined;
let link: DelayProxy | undefined;
let requests = 0;
let cpuBefore = process.cpuUsage();

async function handle(command: LinkCommand): Promise<unknown> {
  if (command.kind === 'store') {
    const intercept = ({
      method,
      url,
    }: {
      method?: string | undefined;
      url?: string | undefined;
    }): boolean => {
      if (method === 'GET' && url?.includes('/blobs/') === true) requests++;
      return false;
    };
    server = await RegistryServer.start({ dir: command.dir, intercept });
    const transport = new RegistryTransport({ host: server.host, plainHttp: true });
    for (const path of command.blobs) await new Repository(transport, 'bench').pushBytes(readFileSync(path));
    await transport.close();
    return server.port;
  }
  if (command.kind === 'link') {
    await link?.close();
    requests = 0;
    cpuBefore = process.cpuUsage();
    const { rttMs, bitsPerSecond } = command;
    link = await startDelayProxy({
      target: { host: '127.0.0.1', port: server?.port ?? 0 },
      rttMs,
      bitsPerSecond,
    });
    return link.port;
  }
  const { user, system } = process.cpuUsage(cpuBefore);
  const numbers: LinkNumbers = {
    linkCpuMs: (user + system) / 1000,
    requests,
    bytes: link?.bytes().toClient ?? 0,
    connections: link?.connections() ?? 0,
  };
  return numbers;
}

process.on('message', (command: LinkCommand) => {
  void handle(command).then(
    (value) => process.send?.({ value }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));
