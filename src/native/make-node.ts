// Device nodes. Source: mknod(2).
import { check, libcFunction } from './libc.ts';

type Mknod = (path: Uint8Array, mode: number, device: bigint) => number;

let call: Mknod | undefined;

/** Make a node. @param path raw bytes @param mode type and permissions. SystemError on failure: EPERM without the right to. */
export function makeNode(path: Uint8Array, mode: number, device: bigint): void {
  call ??= libcFunction<Mknod>('int mknod(void *path, uint32_t mode, uint64_t device)');
  const text = Buffer.concat([path, Buffer.of(0)]);
  check('mknod', call(text, mode, device), Buffer.from(path).toString());
}
