// Run by the kill test: reads pieces of an image for ever, so that its cache fills. Arguments: bootstrap, blob dir, work dir, seed.
import { newAttr } from '../../src/format/image.ts';
import { silentLogger } from '../../src/base/log.ts';
import { RafsInstance } from '../../src/rafs/instance.ts';
import { resolvePath } from '../../src/rafs/path.ts';
import { instanceConfig } from './instance-config.ts';

const [, , bootstrap = '', blobDir = '', workDir = '', seed = '1'] = process.argv;
const instance = await RafsInstance.open({
  bootstrap,
  id: 'child',
  logger: silentLogger,
  config: instanceConfig({ blobDir, workDir, rafs: { batch_size: 0 } }),
  publishMs: 2,
});
const ino = resolvePath(instance.image, '/big');
const attr = newAttr();
instance.image.attr(ino, attr);
let state = Number(seed);
process.stdout.write('ready\n');
for (;;) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  await instance.read(ino, state % attr.size, 4096, Buffer.alloc(4096));
  await new Promise((resolve) => void setImmediate(resolve));
}
