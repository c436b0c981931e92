// Numbers on the command line, read as upstream reads them, with its words for what is wrong.
import { CommandFailure } from '../report.ts';

/**
 * A whole number, decimal or, with `0x` before it, hexadecimal.
 *
 * @param limit largest value that the field behind it can hold
 * @throws CommandFailure whose message is `what` and the text
 */
export function parseSize(text: string, what: string, limit = 0xffff_ffff): number {
  const hex = text.startsWith('0x') || text.startsWith('0X');
  const digits = hex ? text.slice(2) : text.replace(/^\+/, '');
  if (digits === '')
    throw new CommandFailure(`${what} ${text}`, new RangeError('cannot parse integer from empty string'));
  if (!(hex ? /^[0-9a-fA-F]+$/ : /^[0-9]+$/).test(digits)) {
    throw new CommandFailure(`${what} ${text}`, new RangeError('invalid digit found in string'));
  }
  const value = Number.parseInt(digits, hex ? 16 : 10);
  if (value > limit) {
    throw new CommandFailure(`${what} ${text}`, new RangeError('number too large to fit in target type'));
  }
  return value;
}
