// `nydusctl mount` and `nydusctl umount`. Source: nydusd.md 5.6, 17.
import { readFileSync } from 'node:fs';
import { command } from '../command.ts';
import { CommandFailure } from '../report.ts';
import { DaemonApi } from './api.ts';
import { printRefusal, type OutputFlags } from './output.ts';

/** Largest configuration the daemon takes, as JSON text in a request. */
const MAX_CONFIG = 51_200;

function readConfig(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new CommandFailure(`failed to read mount config ${path}`, error);
  }
  if (text.length > MAX_CONFIG)
    throw new CommandFailure(`mount config ${path} has ${text.length} bytes, the daemon takes ${MAX_CONFIG}`);
  return text;
}

function mountPath(mountpoint: string): string {
  // slashes stand in a query as they are; upstream's client sends them so
  return `/api/v1/mount?mountpoint=${encodeURIComponent(mountpoint).replaceAll('%2F', '/')}`;
}

export const mount = command({
  name: 'nydusctl mount',
  summary: 'Mount an image or a directory',
  options: {
    source: { type: 'string', short: 's', required: true, help: 'the bootstrap, or the directory to serve' },
    config: {
      type: 'string',
      short: 'c',
      required: true,
      help: 'file with the configuration of the mount, JSON or TOML',
    },
    mountpoint: {
      type: 'string',
      short: 'm',
      required: true,
      help: 'where it appears inside the mount of the daemon, such as /image',
    },
    type: {
      type: 'string',
      short: 't',
      required: true,
      values: ['rafs', 'passthrough_fs'],
      help: 'what the source is',
    },
  },
  examples: ['nydusctl -S api.sock mount -s image.boot -c nydusd.json -m /image -t rafs'],
  run: async (ctx, values) => {
    const { sock, ...flags } = values as unknown as { sock: string } & OutputFlags;
    const body = { fs_type: values.type, source: values.source, config: readConfig(values.config) };
    const api = new DaemonApi(sock, ctx.signal);
    const answer = await api.request('POST', mountPath(values.mountpoint), body);
    return answer.status >= 400 ? printRefusal(ctx, flags, answer) : 0;
  },
});

export const umount = command({
  name: 'nydusctl umount',
  summary: 'Unmount it again',
  options: {
    mountpoint: {
      type: 'string',
      short: 'm',
      shortOnly: true,
      required: true,
      help: 'where it appears inside the mount of the daemon',
    },
  },
  examples: ['nydusctl -S api.sock umount -m /image'],
  run: async (ctx, values) => {
    const { sock, ...flags } = values as unknown as { sock: string } & OutputFlags;
    const answer = await new DaemonApi(sock, ctx.signal).request('DELETE', mountPath(values.mountpoint));
    return answer.status >= 400 ? printRefusal(ctx, flags, answer) : 0;
  },
});
