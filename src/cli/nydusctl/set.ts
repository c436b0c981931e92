// `nydusctl set`: parameters of a running daemon. Source: nydusd.md 17.
import { command } from '../command.ts';
import { DaemonApi } from './api.ts';
import { printRefusal, type OutputFlags } from './output.ts';

export const set = command({
  name: 'nydusctl set',
  summary: 'Change a parameter of the daemon',
  options: {},
  positionals: {
    KIND: { required: true, values: ['log-level'], help: 'what to change' },
    VALUE: { required: true, help: 'for log-level: off, error, warn, info, debug or trace' },
  },
  examples: ['nydusctl -S api.sock set log-level debug'],
  run: async (ctx, values) => {
    const { sock, ...flags } = values as unknown as { sock: string } & OutputFlags;
    const body = { log_level: values.VALUE };
    const answer = await new DaemonApi(sock, ctx.signal).request('PUT', '/api/v1/daemon', body);
    return answer.status >= 400 ? printRefusal(ctx, flags, answer) : 0;
  },
});
