// A bootstrap as text: every structure with its fields, and every byte accounted for. Two images with equal dumps are equal
// in all that a reader can see; the struct tables of format/ drive the text.
import { FormatError } from '../base/errors.ts';
import type { RafsImage } from '../format/image.ts';
import { Rafs5Image } from '../format/rafs5/reader.ts';
import { Rafs6Image } from '../format/rafs6/reader.ts';
import { regions5 } from './dump-rafs5.ts';
import { regions6 } from './dump-rafs6.ts';
import { regionLines, type Region } from './dump-text.ts';

/**
 * Parts of a bootstrap in file order. Gaps between them are padding or unknown.
 *
 * @throws FormatError the tree is damaged
 */
export function bootstrapRegions(image: RafsImage): Region[] {
  if (image instanceof Rafs5Image) return regions5(image);
  if (image instanceof Rafs6Image) return regions6(image);
  throw new FormatError({ struct: 'image' }, `no dump for version ${image.super.version}`);
}

/**
 * Lines of the dump, without line ends.
 *
 * @throws FormatError the tree is damaged
 */
export function dumpBootstrap(image: RafsImage): Iterable<string> {
  return regionLines(image.bytes, bootstrapRegions(image), image.bytes.length);
}
