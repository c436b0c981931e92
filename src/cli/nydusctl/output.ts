// How answers of the daemon are printed: for people, as upstream's one line of JSON (`--raw`), or as JSON to read (`--json`).
import type { CommandContext, Options } from '../command.ts';
import type { Answer, Json } from './api.ts';
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

/** Report an answer of status 400 or more. @returns the exit status */
export function printRefusal(ctx: CommandContext, flags: OutputFlags, answer: Answer): number {
  const text = flags.json
    ? JSON.stringify({ status: answer.status, error: answer.body }, undefined, 2)
    : `Error: Request failed. ${debugJson(answer.body)}`;
  ctx.stderr.write(`${text}\n`);
  return 1;
}
