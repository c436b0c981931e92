// Linux errno numbers by name, x86_64 and arm64 (they agree). Source: include/uapi/asm-generic/errno*.h
import { constants } from 'node:os';
import { NydusError } from './errors.ts';

/** Number of an errno name; EIO for a name that is not known. */
export function errnoNumber(name: string): number {
  return (constants.errno as Record<string, number>)[name] ?? constants.errno.EIO;
}

/** Errno number to reply for anything that was thrown: ours carry a name, node's a code, others are EIO. */
export function errnoOf(error: unknown): number {
  if (error instanceof NydusError) return errnoNumber(error.errno);
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? errnoNumber(code) : constants.errno.EIO;
}

/** Name of an errno number, such as `ENOENT`; `E<number>` when unknown. */
export function errnoName(number: number): string {
  for (const [name, value] of Object.entries(constants.errno)) if (value === number) return name;
  return `E${number}`;
}
