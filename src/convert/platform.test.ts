import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../base/errors.ts';
import { hostArchitecture, matchesPlatform, parsePlatforms } from './platform.ts';

test('parsePlatforms: spellings of one platform come to the same', () => {
  const cases: [string, [os: string, architecture: string, variant: string][]][] = [
    ['linux/amd64', [['linux', 'amd64', '']]],
    [
      'linux/x86_64, linux/aarch64',
      [
        ['linux', 'amd64', ''],
        ['linux', 'arm64', ''],
      ],
    ],
    ['linux/arm64/v8', [['linux', 'arm64', '']]],
    ['linux/arm', [['linux', 'arm', 'v7']]],
    ['linux/arm/6', [['linux', 'arm', 'v6']]],
    ['arm64', [['linux', 'arm64', '']]],
    ['linux', [['linux', hostArchitecture(), '']]],
    ['', [['linux', hostArchitecture(), '']]],
  ];
  for (const [text, expected] of cases) {
    const found = parsePlatforms(text).map(({ os, architecture, variant }) => [os, architecture, variant]);
    assert.deepEqual(found, expected, text);
  }
});

test('parsePlatforms: what is no platform is refused', () => {
  for (const text of ['a/b/c/d', 'linux/', 'linux/amd 64']) {
    assert.throws(
      () => parsePlatforms(text),
      (error: unknown) => error instanceof UsageError && error.exitCode === 1,
    );
  }
});

test('matchesPlatform: variants tell platforms apart, v8 of arm64 does not', () => {
  const [arm64, arm] = parsePlatforms('linux/arm64,linux/arm/v7');
  assert.ok(arm64 !== undefined && arm !== undefined);
  assert.equal(matchesPlatform(arm64, { os: 'linux', architecture: 'arm64', variant: 'v8' }), true);
  assert.equal(matchesPlatform(arm64, { os: 'windows', architecture: 'arm64' }), false);
  assert.equal(matchesPlatform(arm, { os: 'linux', architecture: 'arm', variant: 'v6' }), false);
  assert.equal(matchesPlatform(arm, { os: 'linux', architecture: 'arm' }), true);
});
