// The prefetch list on standard input. Source: nydus-image 2.6.
import type { Logger } from '../../base/log.ts';
import { MIB } from '../../base/limits.ts';
import { parsePrefetchList } from '../../build/prefetch-patterns.ts';
import type { PrefetchPolicy } from '../../build/options.ts';
import type { CommandContext } from '../command.ts';
import { CommandFailure } from '../report.ts';

/** Longest prefetch list; a list names files, so more than this is not a list but a mistake. */
export const MAX_PREFETCH_LIST = 64 * MIB;

/**
 * Patterns for a policy: stdin is read to its end for every policy but none, even when nobody supplies a list.
 *
 * @throws CommandFailure `failed to get prefetch patterns`
 */
export async function readPrefetchList(
  ctx: CommandContext,
  policy: PrefetchPolicy,
  logger: Logger,
): Promise<string[]> {
  if (policy === 'none') return [];
  if (ctx.stdin.isTTY === true) logger.info('reading paths to prefetch, one a line, until Ctrl-D');
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of ctx.stdin) {
      const bytes = Buffer.from(chunk as Uint8Array | string);
      size += bytes.length;
      if (size > MAX_PREFETCH_LIST) throw new RangeError(`more than ${MAX_PREFETCH_LIST} bytes`);
      chunks.push(bytes);
    }
  } catch (error) {
    throw new CommandFailure('failed to get prefetch patterns', error);
  }
  return parsePrefetchList(Buffer.concat(chunks).toString('utf8'), (message) => logger.warn(message));
}
