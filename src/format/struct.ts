// A binary struct is declared once: the table gives the type, the reader, the writer, the docs and the dump.
// Offsets are computed from the order of the fields, never typed. Little-endian unless the codec says `be`.
import { FormatError } from '../base/errors.ts';

/** How one field is stored. */
export interface Codec<T> {
  readonly type: string;
  readonly size: number;
  readonly doc: string;
  read(view: DataView, offset: number): T;
  write(view: DataView, offset: number, value: T): void;
}

/* eslint-disable @typescript-eslint/no-explicit-any */
type Fields = Record<string, Codec<any>>;

/** The plain object a struct reads and writes. */
export type Values<F extends Fields> = { -readonly [K in keyof F]: F[K] extends Codec<infer T> ? T : never };
/** Type of the values of a struct. */
export type Infer<S> = S extends Struct<infer F> ? Values<F> : never;

export interface FieldInfo {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly type: string;
  readonly doc: string;
}

export interface Struct<F extends Fields> {
  readonly name: string;
  readonly size: number;
  readonly source: string;
  readonly doc: string;
  readonly layout: readonly FieldInfo[];
  /** read one field: no object, the hot path */
  readonly field: { readonly [K in keyof F]: (view: DataView, base: number) => Values<F>[K] };
  /** write one field */
  readonly put: { readonly [K in keyof F]: (view: DataView, base: number, value: Values<F>[K]) => void };
  read(view: DataView, base: number): Values<F>;
  /** write all fields; those left out are written as zero */
  write(view: DataView, base: number, values: Partial<Values<F>>): void;
  /** the struct as bytes of its own */
  encode(values: Partial<Values<F>>): Buffer;
}

/**
 * Declare a struct.
 *
 * @throws TypeError the fields do not add up to `size`
 */
export function struct<F extends Fields>(
  name: string,
  spec: { size: number; source: string; doc?: string; fields: F },
): Struct<F> {
  const layout: FieldInfo[] = [];
  const field: Record<string, unknown> = {};
  const put: Record<string, unknown> = {};
  const parts: { key: string; codec: Codec<any>; offset: number }[] = [];
  let offset = 0;
  for (const [key, codec] of Object.entries(spec.fields)) {
    const at = offset;
    layout.push({ name: key, offset: at, size: codec.size, type: codec.type, doc: codec.doc });
    parts.push({ key, codec, offset: at });
    field[key] = (view: DataView, base: number) => codec.read(view, base + at);
    put[key] = (view: DataView, base: number, value: unknown) => codec.write(view, base + at, value);
    offset += codec.size;
  }
  if (offset !== spec.size)
    throw new TypeError(`struct ${name}: fields fill ${offset} of ${spec.size} bytes`);
  const self: Struct<F> = {
    name,
    size: spec.size,
    source: spec.source,
    doc: spec.doc ?? '',
    layout,
    field: field as Struct<F>['field'],
    put: put as Struct<F>['put'],
    read(view, base) {
      if (base < 0 || base + spec.size > view.byteLength) {
        throw new FormatError(
          { struct: name, offset: base },
          `needs ${spec.size} bytes, ${Math.max(0, view.byteLength - base)} are left`,
        );
      }
      const out: Record<string, unknown> = {};
      for (const part of parts) out[part.key] = part.codec.read(view, base + part.offset);
      return out as Values<F>;
    },
    write(view, base, values) {
      for (const part of parts) {
        const value = values[part.key];
        if (value !== undefined) part.codec.write(view, base + part.offset, value);
        else new Uint8Array(view.buffer, view.byteOffset + base + part.offset, part.codec.size).fill(0);
      }
    },
    encode(values) {
      const bytes = Buffer.alloc(spec.size);
      self.write(new DataView(bytes.buffer, bytes.byteOffset, spec.size), 0, values);
      return bytes;
    },
  };
  return self;
}

function checkRange(type: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 0 || value > max)
    throw new RangeError(`${type} cannot hold ${value}`);
}

export function u8(doc: string): Codec<number> {
  return {
    type: 'u8',
    size: 1,
    doc,
    read: (view, offset) => view.getUint8(offset),
    write: (view, offset, value) => {
      checkRange('u8', value, 0xff);
      view.setUint8(offset, value);
    },
  };
}

export function u16(doc: string): Codec<number> {
  return {
    type: 'u16',
    size: 2,
    doc,
    read: (view, offset) => view.getUint16(offset, true),
    write: (view, offset, value) => {
      checkRange('u16', value, 0xffff);
      view.setUint16(offset, value, true);
    },
  };
}

export function u32(doc: string): Codec<number> {
  return {
    type: 'u32',
    size: 4,
    doc,
    read: (view, offset) => view.getUint32(offset, true),
    write: (view, offset, value) => {
      checkRange('u32', value, 0xffff_ffff);
      view.setUint32(offset, value, true);
    },
  };
}

export function i32(doc: string): Codec<number> {
  return {
    type: 'i32',
    size: 4,
    doc,
    read: (view, offset) => view.getInt32(offset, true),
    write: (view, offset, value) => view.setInt32(offset, value, true),
  };
}

/** A u64 that must be a safe integer: offsets, sizes, counts, nids. */
export function u64n(doc: string): Codec<number> {
  return {
    type: 'u64',
    size: 8,
    doc,
    read: (view, offset) => {
      const high = view.getUint32(offset + 4, true);
      if (high > 0x1f_ffff) throw new FormatError({ struct: 'u64', offset }, 'larger than 2^53 - 1');
      return high * 0x1_0000_0000 + view.getUint32(offset, true);
    },
    write: (view, offset, value) => {
      checkRange('u64', value, Number.MAX_SAFE_INTEGER);
      view.setUint32(offset, value % 0x1_0000_0000, true);
      view.setUint32(offset + 4, Math.floor(value / 0x1_0000_0000), true);
    },
  };
}

/** A signed 64-bit number within +-2^53: seconds since 1970. */
export function i64n(doc: string): Codec<number> {
  return {
    type: 'i64',
    size: 8,
    doc,
    read: (view, offset) => view.getInt32(offset + 4, true) * 0x1_0000_0000 + view.getUint32(offset, true),
    write: (view, offset, value) => view.setBigInt64(offset, BigInt(value), true),
  };
}

/** A u64 whose bits are flags. */
export function u64(doc: string): Codec<bigint> {
  return {
    type: 'u64',
    size: 8,
    doc,
    read: (view, offset) => view.getBigUint64(offset, true),
    write: (view, offset, value) => view.setBigUint64(offset, value, true),
  };
}

/** Raw bytes; reading gives a view of the same memory, writing pads with zeros. */
export function bytes(size: number, doc: string): Codec<Uint8Array> {
  return {
    type: `bytes[${size}]`,
    size,
    doc,
    read: (view, offset) => new Uint8Array(view.buffer, view.byteOffset + offset, size),
    write: (view, offset, value) => {
      if (value.length > size) throw new RangeError(`bytes[${size}] cannot hold ${value.length} bytes`);
      const target = new Uint8Array(view.buffer, view.byteOffset + offset, size);
      target.fill(0);
      target.set(value);
    },
  };
}

/** ASCII text padded with NUL; reading stops at the first NUL. */
export function ascii(size: number, doc: string): Codec<string> {
  return {
    type: `ascii[${size}]`,
    size,
    doc,
    read: (view, offset) => {
      const raw = Buffer.from(view.buffer, view.byteOffset + offset, size);
      const end = raw.indexOf(0);
      return raw.toString('latin1', 0, end < 0 ? size : end);
    },
    write: (view, offset, value) => {
      const raw = Buffer.from(value, 'latin1');
      if (raw.length > size) throw new RangeError(`ascii[${size}] cannot hold ${raw.length} bytes`);
      const target = new Uint8Array(view.buffer, view.byteOffset + offset, size);
      target.fill(0);
      target.set(raw);
    },
  };
}
