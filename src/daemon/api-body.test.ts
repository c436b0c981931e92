import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ApiError } from './api-error.ts';
import { decodeStringMap, decodeStruct } from './api-body.ts';

const MOUNT = {
  source: { type: 'string', required: true },
  fs_type: { type: 'string' },
  config: { type: 'string', required: true },
  prefetch_files: { type: 'strings' },
} as const;

function refusal(decode: () => unknown): string {
  try {
    decode();
  } catch (error) {
    assert.ok(error instanceof ApiError);
    assert.equal(error.status, 400);
    return error.message;
  }
  return assert.fail('accepted');
}

describe('decodeStruct', () => {
  it('decodeStruct: refuses in the words and at the places of golden/api', () => {
    const cases: [text: string, problem: string, column: number][] = [
      ['{', 'EOF while parsing an object', 1],
      ['[]', 'invalid length 0, expected struct ApiMountCmd with 4 elements', 2],
      ['{}', 'missing field `source`', 2],
      ['{"source": "x"}', 'missing field `config`', 15],
      ['{"source": "x", "config": {}}', 'invalid type: map, expected a string', 26],
      ['{"source": 3}', 'invalid type: integer `3`, expected a string', 12],
      ['{"source": -1.5}', 'invalid type: floating point `-1.5`, expected a string', 15],
      ['{"source": null}', 'invalid type: null, expected a string', 15],
      ['{"source": true}', 'invalid type: boolean `true`, expected a string', 15],
      ['{"source": []}', 'invalid type: sequence, expected a string', 11],
      ['not json', 'expected ident', 2],
      ['junk', 'expected value', 1],
      ['3', 'invalid type: integer `3`, expected struct ApiMountCmd', 1],
      ['{"source": "x",}', 'trailing comma', 16],
      ['{"source" "x"}', 'expected `:`', 11],
      ['{"source": "x"', 'EOF while parsing an object', 14],
      ['{"source": "x', 'EOF while parsing a string', 13],
      ['{} x', 'trailing characters', 4],
      ['{"prefetch_files": "x"}', 'invalid type: string "x", expected a sequence', 22],
    ];
    for (const [text, problem, column] of cases) {
      const escaped = problem.replaceAll('"', '\\"');
      assert.equal(
        refusal(() => decodeStruct(text, 'ApiMountCmd', MOUNT)),
        `ParseBody(Error("${escaped}", line: 1, column: ${column}))`,
        text,
      );
    }
    assert.equal(
      refusal(() => decodeStruct('{\n\n "source": 7}', 'ApiMountCmd', MOUNT)),
      'ParseBody(Error("invalid type: integer `7`, expected a string", line: 3, column: 12))',
    );
  });

  it('decodeStruct: keeps known fields, ignores others, takes null for an absent list', () => {
    const body = decodeStruct(
      '{"x": [1], "source": "s\\u00e9", "config": "", "prefetch_files": ["/a", "/b"]}',
      'ApiMountCmd',
      MOUNT,
    );
    assert.deepEqual(body, { source: 'sé', config: '', prefetch_files: ['/a', '/b'] });
    assert.deepEqual(decodeStruct('{"source":"s","config":"c","prefetch_files":null}', 'A', MOUNT), {
      source: 's',
      config: 'c',
    });
  });
});

describe('decodeStringMap', () => {
  it('decodeStringMap: takes strings only', () => {
    assert.deepEqual(
      [...decodeStringMap('{"a": "1", "b": ""}')],
      [
        ['a', '1'],
        ['b', ''],
      ],
    );
    assert.equal(
      refusal(() => decodeStringMap('{"registry_auth": 1}')),
      'ParseBody(Error("invalid type: integer `1`, expected a string", line: 1, column: 19))',
    );
    assert.equal(
      refusal(() => decodeStringMap('[]')),
      'ParseBody(Error("invalid type: sequence, expected a map", line: 1, column: 0))',
    );
  });
});
