import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodePath, signOss, signS3 } from './signing.ts';

test('signOss: the vector of blob-and-cache 21.8', () => {
  assert.deepEqual(signOss('GET', '/bucket/nydus/abc', { id: 'AK', secret: 'secret' }, 0), {
    date: 'Thu, 01 Jan 1970 00:00:00 GMT',
    authorization: 'OSS AK:gAdGwG5yNg4UAP8FVizDnZP26VQ=',
  });
});

test('signS3: the vector of blob-and-cache 21.9', () => {
  const signed = signS3(
    {
      method: 'GET',
      url: new URL('https://s3.amazonaws.com/bucket/nydus/abc'),
      host: 's3.amazonaws.com',
      region: 'us-east-1',
      headers: { range: 'bytes=0-99' },
    },
    { id: 'AK', secret: 'secret' },
    Date.UTC(2023, 0, 1),
  );
  assert.equal(signed['x-amz-date'], '20230101T000000Z');
  assert.equal(signed['range'], 'bytes=0-99');
  assert.equal(
    signed['authorization'],
    'AWS4-HMAC-SHA256 Credential=AK/20230101/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=3332970e7d5d87cba50e133453fb0e8a84ff5d1756e1247d2cdf4eee8bdca22e',
  );
});

// AWS documentation, "Examples: Signature Calculations in AWS Signature Version 4", GET Object
test('signS3: the example that Amazon publishes', () => {
  const { authorization } = signS3(
    {
      method: 'GET',
      url: new URL('https://examplebucket.s3.amazonaws.com/test.txt'),
      host: 'examplebucket.s3.amazonaws.com',
      region: 'us-east-1',
      headers: { range: 'bytes=0-9' },
    },
    { id: 'AKIAIOSFODNN7EXAMPLE', secret: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
    Date.UTC(2013, 4, 24),
  );
  assert.match(
    authorization ?? '',
    /Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41$/,
  );
});

// the same chapter, PUT Object
test('signS3: a request with a body, the example that Amazon publishes', () => {
  const { authorization } = signS3(
    {
      method: 'PUT',
      url: new URL('https://examplebucket.s3.amazonaws.com/test%24file.text'),
      host: 'examplebucket.s3.amazonaws.com',
      region: 'us-east-1',
      headers: { date: 'Fri, 24 May 2013 00:00:00 GMT', 'x-amz-storage-class': 'REDUCED_REDUNDANCY' },
      bodySha256: '44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072',
    },
    { id: 'AKIAIOSFODNN7EXAMPLE', secret: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
    Date.UTC(2013, 4, 24),
  );
  assert.match(
    authorization ?? '',
    /Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd$/,
  );
});

test('encodePath: slashes stay, everything that is reserved does not', () => {
  assert.equal(encodePath("a/b c/(d)*!'~-_.ä"), 'a/b%20c/%28d%29%2A%21%27~-_.%C3%A4');
});
