// `nydusctl info`: the daemon and its mounts. Source: nydusd.md 17, golden cli/mistakes.jsonl.
import { command } from '../command.ts';
import { DaemonApi, member, type Json } from './api.ts';
import { printAnswer, printRefusal, type OutputFlags } from './output.ts';

const LABEL = 24;

function plain(value: Json): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** Upstream's client prints the hour without its leading zero. */
function shownTime(text: Json): string {
  return plain(text).replace(/^(\S+) 0(\d:)/, '$1 $2');
}

function mountText(mount: Json): string {
  const type = plain(member(mount, 'backend_type'));
  const lines = [
    `\tInstance Mountpoint:  ${plain(member(mount, 'mountpoint'))}`,
    `\tType:  ${type}`,
    `\tMounted Time:  ${shownTime(member(mount, 'mounted_time'))}`,
  ];
  if (type === 'Rafs') {
    const prefetch = member(mount, 'config', 'cache', 'prefetch');
    lines.push(
      `\tMode:  ${plain(member(mount, 'config', 'rafs', 'mode'))}`,
      `\tPrefetch:  ${plain(member(prefetch, 'enable'))}`,
      `\tPrefetch Merging Size:  ${plain(member(prefetch, 'batch_size'))}`,
      '',
    );
  }
  return `${lines.join('\n')}\n`;
}

/** The form for people. */
export function infoText(body: Json): string {
  const line = (label: string, value: Json): string => `${label.padEnd(LABEL)}${JSON.stringify(value)}\n`;
  const head =
    '\n' +
    line('Version:', member(body, 'version', 'package_ver')) +
    line('Status:', member(body, 'state')) +
    line('Profile:', member(body, 'version', 'profile')) +
    line('Commit:', member(body, 'version', 'git_commit'));
  const mounts = member(body, 'backend_collection');
  if (mounts === null || typeof mounts !== 'object' || Array.isArray(mounts)) return head;
  const keys = Object.keys(mounts).sort();
  if (keys.length === 0) return head;
  return `${head}Instances:\n${keys.map((key) => mountText(member(mounts, key))).join('')}`;
}

export const info = command({
  name: 'nydusctl info',
  summary: 'Show the daemon, its state and what it has mounted',
  options: {},
  examples: ['nydusctl -S api.sock info', 'nydusctl -S api.sock info --json | jq .state'],
  run: async (ctx, values) => {
    const { sock, ...flags } = values as unknown as { sock: string } & OutputFlags;
    const answer = await new DaemonApi(sock, ctx.signal).request('GET', '/api/v1/daemon');
    if (answer.status >= 400) return printRefusal(ctx, flags, answer);
    printAnswer(ctx, flags, answer.body, infoText);
    return 0;
  },
});
