import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { FormatError } from '../base/errors.ts';
import { beginInflate, type InflateStream } from '../native/inflate.ts';
import { inflated } from './pool-inflate.ts';
import { WorkerPool } from './pool.ts';

function newStream(): InflateStream {
  const stream = beginInflate();
  assert.ok(stream !== undefined);
  return stream;
}

function newPool(): WorkerPool {
  return new WorkerPool({ chunkSize: 0x10000, compressor: 'zstd', digester: 'blake3', batchLimit: 0 }, 2);
}

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Buffer[] = [];
  // pieces are valid until the next one: copied
  for await (const chunk of chunks) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

const noise = randomBytes(700_000);
/** 5.6 MB, in two members, that neither shrink to nothing nor stay as they are */
const plain = Buffer.concat([noise, Buffer.alloc(2_000_000, 'abcdefg'), noise, Buffer.alloc(2_200_000)]);
const packed = Buffer.concat([gzipSync(plain.subarray(0, 1_500_000)), gzipSync(plain.subarray(1_500_000))]);

for (const started of [false, true]) {
  test(`inflated: gives what was packed, ${started ? 'with workers' : 'on the calling thread'}`, async () => {
    const pool = newPool();
    try {
      if (started) pool.start();
      for (const size of [10_000, 256 * 1024, packed.length]) {
        const bytes = await collect(inflated(newStream(), pieces(packed, size), pool));
        assert.ok(bytes.equals(plain), `pieces of ${size}`);
      }
      const padded = Buffer.concat([packed, Buffer.alloc(512)]);
      assert.ok((await collect(inflated(newStream(), pieces(padded, 4096), pool))).equals(plain));
    } finally {
      await pool.close();
    }
  });
}

test('inflated: damage and an early end are told, the source is closed', async () => {
  const pool = newPool();
  try {
    pool.start();
    let closed = 0;
    const watched = async function* (bytes: Uint8Array): AsyncGenerator<Uint8Array> {
      try {
        yield* pieces(bytes, 50_000);
      } finally {
        closed++;
      }
    };
    const short = collect(inflated(newStream(), watched(packed.subarray(0, packed.length - 4)), pool));
    await assert.rejects(short, { message: 'compressed tar: unexpected end of file' });
    const flipped = Buffer.from(packed);
    flipped.fill(0xff, 1000, 1100);
    await assert.rejects(collect(inflated(newStream(), watched(flipped), pool)), FormatError);
    const failing = async function* (): AsyncGenerator<Uint8Array> {
      yield* watched(packed.subarray(0, 100_000));
      throw new Error('the source broke');
    };
    await assert.rejects(collect(inflated(newStream(), failing(), pool)), { message: 'the source broke' });
    for await (const piece of inflated(newStream(), watched(packed), pool)) {
      assert.ok(piece.length > 0 && piece.length <= 1024 * 1024);
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(closed, 4);
  } finally {
    await pool.close();
  }
});
