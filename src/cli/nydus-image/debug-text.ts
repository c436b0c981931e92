// Names are bytes; in messages they stand in quotation marks with everything unprintable escaped, as upstream shows them.

function escapeChar(char: string): string {
  switch (char) {
    case '\0':
      return '\\0';
    case '\t':
      return '\\t';
    case '\n':
      return '\\n';
    case '\r':
      return '\\r';
    case '"':
      return '\\"';
    case '\\':
      return '\\\\';
  }
  // marks that attach to the letter before them would attach to the quotation mark
  return /^[\p{C}\p{Grapheme_Extend}\p{Zl}\p{Zp}]$/u.test(char)
    ? `\\u{${(char.codePointAt(0) as number).toString(16)}}`
    : char;
}

/** Length of the UTF-8 sequence that starts at `at`, 0 when there is none. */
function sequence(bytes: Uint8Array, at: number): number {
  const lead = bytes[at] as number;
  const length = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
  if (length === 0 || at + length > bytes.length) return 0;
  const text = Buffer.from(bytes.subarray(at, at + length)).toString('utf8');
  return text.includes('\ufffd') && length !== 3 ? 0 : Buffer.byteLength(text) === length ? length : 0;
}

/** Bytes of a name as quoted text: `"a\tb"`, and `\xFF` for what is no UTF-8. */
export function quoted(name: Uint8Array): string {
  const bytes = Buffer.from(name.buffer, name.byteOffset, name.byteLength);
  const text = bytes.toString('utf8');
  let out = '';
  if (!text.includes('\ufffd')) {
    for (const char of text) out += escapeChar(char);
    return `"${out}"`;
  }
  for (let at = 0; at < bytes.length;) {
    const length = sequence(bytes, at);
    if (length === 0) {
      out += `\\x${(bytes[at] as number).toString(16).toUpperCase().padStart(2, '0')}`;
      at += 1;
    } else {
      out += escapeChar(bytes.toString('utf8', at, at + length));
      at += length;
    }
  }
  return `"${out}"`;
}
