// Makes the image that load.ts reads: one directory of small files, and one big file.
// usage: node bench/fuse/load-image.ts DIR [FILES] [BIG_MIB]
import { makeImage, sampleData, type MadeFile } from '../../test/conformance/make-image.ts';

const [dir, files = '40000', bigMib = '256'] = process.argv.slice(2);
if (dir === undefined) {
  process.stderr.write('usage: load-image.ts DIR [FILES] [BIG_MIB]\n');
  process.exit(2);
}
const block = sampleData(4096, 7);
const list: MadeFile[] = Array.from({ length: Number(files) }, (_, i) => ({
  name: `file-${String(i).padStart(6, '0')}`,
  data: Buffer.concat([Buffer.from(String(i).padStart(8, '0')), block.subarray(8)]),
}));
const mib = sampleData(1 << 20, 9);
const big = Buffer.alloc(Number(bigMib) << 20);
for (let i = 0; i < Number(bigMib); i++) {
  mib.copy(big, i << 20);
  big.writeUInt32LE(i, i << 20);
}
list.push({ name: 'big', data: big });
makeImage(dir, list, { version: 6, compressor: 'none', chunkSize: 0x10_0000 });
