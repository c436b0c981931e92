import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { JsonSyntaxError, linesOf, parseJson, placeOf, valueOf } from './config-parse-json.ts';
import { tomlLines } from './config-parse-toml.ts';

/** Small generator of reproducible numbers (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe('parseJson', () => {
  it('parseJson: reads what JSON.parse reads, to the same values', () => {
    const texts = [
      '{}',
      ' [1, -2.5e3, 0, 1E+2, true, false, null] ',
      '{"a":{"b":[{"c":"d"}]},"":"\\u00e9\\n\\"\\\\\\/\\b\\f\\r\\t","x":"é😀"}',
      '"\\ud83d\\ude00"',
    ];
    for (const text of texts) {
      assert.equal(JSON.stringify(valueOf(parseJson(text))), JSON.stringify(JSON.parse(text)));
    }
  });

  it('parseJson: refuses what JSON.parse refuses, and only with its own error (mutations of one text)', () => {
    const text = '{"a": [1, 2.5, -3e2, true, null], "b": {"c": "d\\n\\u0041", "e": []}, "f": false}';
    const next = random(20260101);
    const alphabet = '{}[]",:0123456789.eE+-truefalsn\\ \n/*x\x01';
    for (let round = 0; round < 3000; round++) {
      const at = Math.floor(next() * text.length);
      const insert = alphabet[Math.floor(next() * alphabet.length)] ?? '';
      const mutated = text.slice(0, at) + insert + text.slice(at + Math.floor(next() * 3));
      let expected: string | undefined;
      try {
        expected = JSON.stringify(JSON.parse(mutated));
      } catch {
        assert.throws(() => parseJson(mutated), JsonSyntaxError, mutated);
        continue;
      }
      // equal keys: the last one counts in both
      assert.equal(JSON.stringify(valueOf(parseJson(mutated))), expected, mutated);
    }
  });

  it('parseJson: comments stand where white space may, and nowhere unless asked for', () => {
    const text = '// one\n{ /* two\n */ "a" /* x */ : // y\n 1, "b": "// no comment /* here */" } // end';
    assert.equal(
      JSON.stringify(valueOf(parseJson(text, { comments: true }))),
      '{"a":1,"b":"// no comment /* here */"}',
    );
    assert.throws(() => parseJson(text), { message: 'expected value', line: 1, column: 1 });
    assert.throws(() => parseJson('{} /* open', { comments: true }), { message: 'comment is never closed' });
  });

  it('parseJson: hostile depth and hostile keys are harmless', () => {
    assert.throws(() => parseJson('['.repeat(200_000)), { message: 'recursion limit exceeded', column: 129 });
    const value = valueOf(parseJson('{"__proto__": {"polluted": true}}')) as Record<string, unknown>;
    assert.equal(({} as Record<string, unknown>)['polluted'], undefined);
    assert.equal(Object.getPrototypeOf(value), null);
  });
});

describe('linesOf', () => {
  it('linesOf: knows the line of every key and item, and a key that stands twice', () => {
    const text = '{\n "a": {\n  "b": [\n   1,\n   {"c": 2}]},\n "a": 3}';
    const { lines, duplicate } = linesOf(text, parseJson(text));
    assert.deepEqual(Object.fromEntries(lines), {
      '': 1,
      a: 6,
      'a.b': 3,
      'a.b[0]': 4,
      'a.b[1]': 5,
      'a.b[1].c': 5,
    });
    assert.equal(duplicate, 'a');
  });

  it('placeOf: counts lines and bytes', () => {
    assert.deepEqual(placeOf('aé\nb', 4), { line: 2, column: 1 });
    assert.deepEqual(placeOf('aé', 2), { line: 1, column: 3 });
  });
});

describe('tomlLines', () => {
  it('tomlLines: finds keys below headers, dotted, quoted, and in lists of tables', () => {
    const text = 'a = 1\n[b] # x\nc.d = 2\n"e f" = 3\n[b.g]\nh=1\n[[i]]\nj = 1\n[[i]]\nj = 2\n';
    assert.deepEqual(Object.fromEntries(tomlLines(text)), {
      a: 1,
      b: 2,
      'b.c.d': 3,
      'b.e f': 4,
      'b.g': 5,
      'b.g.h': 6,
      'i[0]': 7,
      'i[0].j': 8,
      'i[1]': 9,
      'i[1].j': 10,
    });
  });
});
