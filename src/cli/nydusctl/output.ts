// How answers of the daemon are printed: for people, as upstream's one line of JSON (`--raw`), or as JSON to read (`--json`).
import type { CommandContext, Options } from '../command.ts';
import { member, type Answer, type Json } from './api.ts';
import { debugJson } from './debug-json.ts';

/** Flags of every command, before and after its name. */
export const outputFlags = {
  raw: {
    type: 'flag',
    short: 'r',
    global: true,
    help: 'print the answer as one line of JSON, keys in alphabetical order',
  },
  json: {
    type: 'flag',
    global: true,
    conflicts: ['raw'],
    help: 'print the answer, and errors, as indented JSON',
  },
} as const satisfies Options;

export interface OutputFlags {
  raw: boolean;
  json: boolean;
}

/** A value with the keys of every object in alphabetical order. */
export function sortKeys(value: Json): Json {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (value === null || typeof value !== 'object') return value;
  const keys = Object.keys(value).sort();
  return Object.fromEntries(keys.map((key) => [key, sortKeys(value[key] ?? null)]));
}

/** Print an answer. @param text the form for people, called only when it is wanted */
export function printAnswer(
  ctx: CommandContext,
  flags: OutputFlags,
  body: Json,
  text: (body: Json) => string,
): void {
  if (flags.raw) ctx.stdout.write(`${JSON.stringify(sortKeys(body))}\n`);
  else if (flags.json) ctx.stdout.write(`${JSON.stringify(body, undefined, 2)}\n`);
  else ctx.stdout.write(text(body));
}

/** The next step, by what the answer says. The answers are upstream's, who leaves their reader alone with them. */
const HINTS: readonly (readonly [part: string, hint: string])[] = [
  ['Configure(ResponsePayloadType)', 'the levels of the log are off, error, warn, info, debug and trace'],
  ['PathWalk(', 'the mountpoint is a path inside the mount of the daemon: it begins with / and has no ..'],
  ['object or filesystem already exists', '`nydusctl info` lists what is mounted; umount it first'],
  ["object or filesystem doesn't exist", '`nydusctl info` lists what is mounted, and where'],
  ['Failed to load config', 'what is wrong with the configuration is in the log of the daemon'],
  [
    'RAFS failed to handle request',
    'the daemon opens the paths, not nydusctl: it needs them absolute; its log says more',
  ],
  [
    'passthroughfs failed to handle request',
    'the daemon opens the directory, not nydusctl: it needs its absolute path',
  ],
  ['NotReady', 'the daemon waits for its takeover'],
];

/**
 * Report an answer of status 400 or more.
 *
 * @param hint the next step, where the command knows more than the answer says
 * @returns the exit status
 */
export function printRefusal(
  ctx: CommandContext,
  flags: OutputFlags,
  answer: Answer,
  hint: string | undefined = hintFor(answer),
): number {
  if (flags.json)
    ctx.stderr.write(`${JSON.stringify({ status: answer.status, error: answer.body }, undefined, 2)}\n`);
  else {
    ctx.stderr.write(`Error: Request failed. ${debugJson(answer.body)}\n`);
    if (hint !== undefined && !flags.raw) ctx.stderr.write(`\nHint: ${hint}\n`);
  }
  return 1;
}

function hintFor(answer: Answer): string | undefined {
  const message = member(answer.body, 'message');
  return typeof message !== 'string' ? undefined : HINTS.find(([part]) => message.includes(part))?.[1];
}
