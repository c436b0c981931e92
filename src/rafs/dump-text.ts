// Text of structs and byte ranges for dumps: the struct tables give names, offsets and types.
import { isZero, toHex, viewOf } from '../base/bytes.ts';
import type { FieldInfo } from '../format/struct.ts';

/** What a dump needs of a struct table. */
interface StructTable {
  readonly name: string;
  readonly size: number;
  readonly layout: readonly FieldInfo[];
  readonly field: object;
}

/** A part of the file; `lines` is called when the part is printed. */
export interface Region {
  start: number;
  /** exclusive */
  end: number;
  title: string;
  lines?: () => string[];
}

/** Longest byte field shown whole. */
const MAX_BYTES_SHOWN = 64;
const HEX_FIELDS = /magic|flags|features|format|crc|chunkBits|featureCompat|featureIncompat/i;

/** Offset as eight or more hex digits. */
export function at(offset: number): string {
  return offset.toString(16).padStart(8, '0');
}

/** Bytes as text for people: printable ASCII as it is, the rest as \xNN. */
export function visible(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    const plain = byte > 0x20 && byte < 0x7f && byte !== 0x5c && byte !== 0x22;
    text += plain ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return text;
}

function valueText(name: string, value: unknown): string {
  if (value instanceof Uint8Array) {
    if (isZero(value)) return 'zero';
    const shown = toHex(value.subarray(0, MAX_BYTES_SHOWN));
    return value.length > MAX_BYTES_SHOWN ? `${shown}... (${value.length} bytes)` : shown;
  }
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  if (name === 'mode' && typeof value === 'number') return `0${value.toString(8)}`;
  if (typeof value === 'number' && HEX_FIELDS.test(name)) return `0x${value.toString(16)}`;
  return String(value);
}

/**
 * One line per field of a struct.
 *
 * @param base byte offset of the struct in `bytes`
 * @param shownBase offset to print, when `bytes` is a part of a file
 */
export function structLines(bytes: Uint8Array, table: StructTable, base: number, shownBase = base): string[] {
  const view = viewOf(bytes);
  const read = table.field as Record<string, (view: DataView, base: number) => unknown>;
  return table.layout.map((info) => {
    let text: string;
    try {
      text = valueText(info.name, read[info.name]?.(view, base));
    } catch {
      // a word that is out of range is still shown
      text = toHex(bytes.subarray(base + info.offset, base + info.offset + info.size));
    }
    return `  ${at(shownBase + info.offset)} ${info.name.padEnd(22)} ${info.type.padEnd(10)} ${text}`;
  });
}

/**
 * Lines for the regions and for all that is between them, so that every byte is accounted for once.
 *
 * @param size end of the file
 */
export function* regionLines(bytes: Uint8Array, regions: readonly Region[], size: number): Generator<string> {
  const sorted = regions.toSorted((a, b) => a.start - b.start || b.end - a.end);
  let position = 0;
  for (const region of sorted) {
    if (region.start > position) yield gapLine(bytes, position, region.start);
    const overlap = region.start < position ? ' (overlaps what is before it)' : '';
    yield `${at(region.start)}-${at(region.end)} ${region.title}${overlap}`;
    if (region.lines !== undefined) yield* region.lines();
    position = Math.max(position, region.end);
  }
  if (position < size) yield gapLine(bytes, position, size);
}

function gapLine(bytes: Uint8Array, start: number, end: number): string {
  const part = bytes.subarray(start, end);
  const what = isZero(part)
    ? `padding, ${end - start} zero bytes`
    : `${end - start} bytes that nothing points to: ${valueText('', part)}`;
  return `${at(start)}-${at(end)} ${what}`;
}
