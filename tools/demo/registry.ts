// The registry of the demo: `nydusify serve-registry` as a process of its own, behind a link like those in the world.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { startDelayProxy, type DelayProxy } from '../../test/support/delay-proxy.ts';
import type { Workshop } from './workshop.ts';

/** Round trip and bandwidth of the link; DEMO_RTT (ms) and DEMO_MBIT change them. */
export const link = {
  rttMs: Number(process.env['DEMO_RTT'] ?? 30),
  mbit: Number(process.env['DEMO_MBIT'] ?? 100),
};

export interface DemoRegistry {
  /** where it is pushed to: without the link */
  host: string;
  /** the same registry at the other end of the link */
  farHost: string;
  proxy: DelayProxy;
}

/** Start both. They end with the workshop. */
export async function startRegistry(shop: Workshop, nydusify: readonly string[]): Promise<DemoRegistry> {
  const [file = '', ...first] = nydusify;
  const args = ['serve-registry', '--dir', shop.path('registry'), '--listen', '127.0.0.1:0'];
  const child = spawn(file, [...first, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  shop.adopt(child);
  let log = '';
  child.stderr.on('data', (piece: Buffer) => (log = (log + piece.toString()).slice(-10_000)));
  const ended = once(child, 'exit').then(() => {
    throw new Error(`the registry ended early\n${log}`);
  });
  ended.catch(() => {});
  const [line] = (await Promise.race([once(child.stdout, 'data'), ended])) as [Buffer];
  const host = line
    .toString()
    .trim()
    .replace(/^http:\/\//, '');
  const port = Number(host.split(':').at(-1));
  const proxy = await startDelayProxy({
    target: { host: '127.0.0.1', port },
    rttMs: link.rttMs,
    bitsPerSecond: link.mbit * 1e6,
  });
  return { host, farHost: `127.0.0.1:${proxy.port}`, proxy };
}
