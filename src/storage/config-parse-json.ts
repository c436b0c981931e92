// A JSON reader that knows where everything stands: configuration files (with // and /* */ comments) need the line of a
// key, API bodies need the position and the wording of upstream's decoder (serde_json).
// Source: RFC 8259; error texts nydusd.md 5.2 and golden/api.

/** Deepest nesting; the decoder upstream uses stops there too. Stops a hostile text from exhausting the stack. */
export const MAX_JSON_DEPTH = 128;

export type JsonKind = 'object' | 'array' | 'string' | 'number' | 'boolean' | 'null';

/** A value with its place: `start` is its first character, `end` the one after its last. */
export interface JsonNode {
  kind: JsonKind;
  start: number;
  end: number;
  /** plain value; of objects and arrays only what `members` and `items` do not say: undefined */
  value: string | number | boolean | null | undefined;
  members?: JsonMember[];
  items?: JsonNode[];
}

export interface JsonMember {
  key: string;
  /** first character of the key's quote */
  start: number;
  /** the character after the key's closing quote */
  end: number;
  node: JsonNode;
}

/** Line and column, both from 1; the column counts bytes as serde does. */
export function placeOf(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset);
  const lineStart = before.lastIndexOf('\n') + 1;
  let line = 1;
  for (let i = 0; i < lineStart; i++) if (before.charCodeAt(i) === 10) line++;
  return { line, column: Buffer.byteLength(before.slice(lineStart)) };
}

/** The text is not JSON. `line` and `column` name the last character that was looked at. */
export class JsonSyntaxError extends Error {
  readonly line: number;
  readonly column: number;

  constructor(problem: string, text: string, offset: number) {
    super(problem);
    this.name = 'JsonSyntaxError';
    const place = placeOf(text, offset);
    this.line = place.line;
    this.column = place.column;
  }
}

const ESCAPES: Record<string, string> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

class Reader {
  readonly text: string;
  readonly comments: boolean;
  at = 0;
  depth = 0;

  constructor(text: string, comments: boolean) {
    this.text = text;
    this.comments = comments;
  }

  /** Fail; `offset` counts the characters consumed, the offending one included. */
  fail(problem: string, offset = this.at): never {
    throw new JsonSyntaxError(problem, this.text, Math.min(offset, this.text.length));
  }

  /** Skip white space and comments; the next character, or '' at the end. */
  peek(): string {
    for (;;) {
      const c = this.text[this.at] ?? '';
      if (c === ' ' || c === '\n' || c === '\t' || c === '\r') this.at++;
      else if (c === '/' && this.comments) this.comment();
      else return c;
    }
  }

  comment(): void {
    const next = this.text[this.at + 1];
    if (next === '/') {
      const end = this.text.indexOf('\n', this.at);
      this.at = end < 0 ? this.text.length : end + 1;
    } else if (next === '*') {
      const end = this.text.indexOf('*/', this.at + 2);
      if (end < 0) this.fail('comment is never closed', this.at + 1);
      this.at = end + 2;
    } else this.fail('expected value', this.at + 1);
  }

  value(): JsonNode {
    const c = this.peek();
    const start = this.at;
    if (c === '') this.fail('EOF while parsing a value');
    if (c === '{') return this.object(start);
    if (c === '[') return this.array(start);
    if (c === '"') return this.leaf('string', start, this.string());
    if (c === 't') return this.leaf('boolean', start, this.word('true', true));
    if (c === 'f') return this.leaf('boolean', start, this.word('false', false));
    if (c === 'n') return this.leaf('null', start, this.word('null', null));
    if (c === '-' || (c >= '0' && c <= '9')) return this.leaf('number', start, this.number());
    return this.fail('expected value', this.at + 1);
  }

  leaf(kind: JsonKind, start: number, value: string | number | boolean | null): JsonNode {
    return { kind, start, end: this.at, value };
  }

  enter(): void {
    this.depth++;
    if (this.depth > MAX_JSON_DEPTH) this.fail('recursion limit exceeded', this.at + 1);
  }

  object(start: number): JsonNode {
    this.enter();
    this.at++;
    const members: JsonMember[] = [];
    for (let first = true; ; first = false) {
      let c = this.peek();
      if (c === '') this.fail('EOF while parsing an object');
      if (c === '}') break;
      if (!first) {
        if (c !== ',') this.fail('expected `,` or `}`', this.at + 1);
        this.at++;
        c = this.peek();
        if (c === '') this.fail('EOF while parsing a value');
        if (c === '}') this.fail('trailing comma', this.at + 1);
      }
      if (c !== '"') this.fail('key must be a string', this.at + 1);
      const keyStart = this.at;
      const key = this.string();
      const keyEnd = this.at;
      const colon = this.peek();
      if (colon === '') this.fail('EOF while parsing an object');
      if (colon !== ':') this.fail('expected `:`', this.at + 1);
      this.at++;
      members.push({ key, start: keyStart, end: keyEnd, node: this.value() });
    }
    this.at++;
    this.depth--;
    return { kind: 'object', start, end: this.at, value: undefined, members };
  }

  array(start: number): JsonNode {
    this.enter();
    this.at++;
    const items: JsonNode[] = [];
    for (let first = true; ; first = false) {
      let c = this.peek();
      if (c === '') this.fail('EOF while parsing a list');
      if (c === ']') break;
      if (!first) {
        if (c !== ',') this.fail('expected `,` or `]`', this.at + 1);
        this.at++;
        c = this.peek();
        if (c === '') this.fail('EOF while parsing a value');
        if (c === ']') this.fail('trailing comma', this.at + 1);
      }
      items.push(this.value());
    }
    this.at++;
    this.depth--;
    return { kind: 'array', start, end: this.at, value: undefined, items };
  }

  word<T>(word: string, value: T): T {
    for (const letter of word) {
      const c = this.text[this.at] ?? '';
      if (c === '') this.fail('EOF while parsing a value');
      this.at++;
      if (c !== letter) this.fail('expected ident');
    }
    return value;
  }

  number(): number {
    const match = /-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
    match.lastIndex = this.at;
    const found = match.exec(this.text);
    const after = this.text[this.at + (found?.[0].length ?? 0)] ?? '';
    if (found === null || /[\d.eE]/.test(after)) {
      return this.fail('invalid number', this.at + (found?.[0].length ?? 0) + 1);
    }
    this.at += found[0].length;
    return Number(found[0]);
  }

  string(): string {
    this.at++;
    let out = '';
    let from = this.at;
    for (;;) {
      const c = this.text[this.at] ?? '';
      if (c === '') this.fail('EOF while parsing a string');
      if (c === '"') break;
      if (c < ' ') this.fail('control character (\\u0000-\\u001F) found while parsing a string', this.at + 1);
      if (c === '\\') {
        out += this.text.slice(from, this.at) + this.escape();
        from = this.at;
      } else this.at++;
    }
    out += this.text.slice(from, this.at);
    this.at++;
    return out;
  }

  escape(): string {
    const c = this.text[this.at + 1] ?? '';
    if (c === '') this.fail('EOF while parsing a string', this.at + 1);
    if (c !== 'u') {
      const plain = ESCAPES[c];
      if (plain === undefined) this.fail('invalid escape', this.at + 2);
      this.at += 2;
      return plain;
    }
    const hex = this.text.slice(this.at + 2, this.at + 6);
    if (!/^[0-9a-fA-F]{4}$/.test(hex)) this.fail('invalid escape', this.at + 2 + hex.length);
    this.at += 6;
    return String.fromCharCode(Number.parseInt(hex, 16));
  }
}

/**
 * Read one JSON text.
 *
 * @param options.comments accept `//` and block comments wherever white space may stand
 * @throws JsonSyntaxError with line and column
 */
export function parseJson(text: string, options: { comments?: boolean } = {}): JsonNode {
  const reader = new Reader(text, options.comments ?? false);
  if (text.charCodeAt(0) === 0xfeff) reader.at = 1;
  const node = reader.value();
  if (reader.peek() !== '') reader.fail('trailing characters', reader.at + 1);
  return node;
}

/** Plain value of a node. Keys go into objects without a prototype: `__proto__` is a key like any other. */
export function valueOf(node: JsonNode): unknown {
  if (node.members !== undefined) {
    const out = Object.create(null) as Record<string, unknown>;
    for (const member of node.members) out[member.key] = valueOf(member.node);
    return out;
  }
  if (node.items !== undefined) return node.items.map(valueOf);
  return node.value;
}

/** Lines of all keys by path (`device.backend.config.alt_dirs[1]`), and the first key that stands twice in its object. */
export function linesOf(text: string, root: JsonNode): { lines: Map<string, number>; duplicate?: string } {
  const lineStarts = [0];
  for (let i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) lineStarts.push(i + 1);
  const lines = new Map<string, number>();
  let duplicate: string | undefined;
  const lineAt = (offset: number): number => {
    let low = 0;
    let high = lineStarts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((lineStarts[middle] ?? 0) <= offset) low = middle;
      else high = middle;
    }
    return low + 1;
  };
  const walk = (node: JsonNode, path: string): void => {
    for (const member of node.members ?? []) {
      const key = path === '' ? member.key : `${path}.${member.key}`;
      if (lines.has(key)) duplicate ??= key;
      lines.set(key, lineAt(member.start));
      walk(member.node, key);
    }
    for (const [index, item] of (node.items ?? []).entries()) {
      lines.set(`${path}[${index}]`, lineAt(item.start));
      walk(item, `${path}[${index}]`);
    }
  };
  lines.set('', lineAt(root.start));
  walk(root, '');
  return duplicate === undefined ? { lines } : { lines, duplicate };
}
