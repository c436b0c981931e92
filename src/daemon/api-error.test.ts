import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ApiError, DaemonError, debugString, errorResponse } from './api-error.ts';

describe('debugString', () => {
  it('debugString: quotes as Rust does', () => {
    const cases: [text: string, quoted: string][] = [
      ['plain', '"plain"'],
      ["doesn't", `"doesn't"`],
      ['a"b\\c', '"a\\"b\\\\c"'],
      ['a\nb\tc\rd\0e', '"a\\nb\\tc\\rd\\0e"'],
      ['\x01\x7f', '"\\u{1}\\u{7f}"'],
      ['é', '"é"'],
    ];
    for (const [text, quoted] of cases) assert.equal(debugString(text), quoted);
  });
});

describe('errorResponse', () => {
  it('errorResponse: renders nested errors with the status of the innermost (nydusd.md 5.2)', () => {
    const other = DaemonError.other('object or filesystem already exists');
    const cases: [error: ApiError, status: number, body: string][] = [
      [
        ApiError.wrap('Mount', 'MountFilesystem', other),
        500,
        String.raw`{"code":"UNDEFINED","message":"Mount(MountFilesystem(Other(\"object or filesystem already exists\")))"}`,
      ],
      [
        ApiError.noCounter('Pattern'),
        404,
        '{"code":"UNDEFINED","message":"Pattern(Metrics(Stats(NoCounter)))"}',
      ],
      [
        ApiError.wrap('Configure', 'DaemonAbnormal', DaemonError.unexpectedEvent('Start')),
        400,
        String.raw`{"code":"UNDEFINED","message":"Configure(DaemonAbnormal(UnexpectedEvent(\"Start\")))"}`,
      ],
      [
        ApiError.wrap('Upgrade', 'DaemonAbnormal', DaemonError.notReady()),
        503,
        '{"code":"UNDEFINED","message":"Upgrade(DaemonAbnormal(NotReady))"}',
      ],
      [
        ApiError.wrap('Mount', 'DaemonAbnormal', DaemonError.unsupported()),
        501,
        '{"code":"UNDEFINED","message":"Mount(DaemonAbnormal(Unsupported))"}',
      ],
      [
        ApiError.wrap('FsBackendInfo', 'MetricsDaemon', DaemonError.unsupported()),
        500,
        '{"code":"UNDEFINED","message":"FsBackendInfo(Metrics(Daemon(Unsupported)))"}',
      ],
      [
        ApiError.missingQuery('mountpoint'),
        400,
        String.raw`{"code":"UNDEFINED","message":"QueryString(\"'mountpoint' should be specified in query string\")"}`,
      ],
      [ApiError.noRoute(), 404, '{"code":"UNDEFINED","message":"NoRoute"}'],
      [
        ApiError.wrap('Mount', 'MountFilesystem', new TypeError('a "bug"')),
        500,
        String.raw`{"code":"UNDEFINED","message":"Mount(MountFilesystem(Other(\"a \\\"bug\\\"\")))"}`,
      ],
    ];
    for (const [error, status, body] of cases) assert.deepEqual(errorResponse(error), { status, body });
  });
});
