// Copies images as they are: no byte of a layer or manifest changes, so digests stay. Source: nydus-image-and-nydusify.md 9.5.
import type { Logger } from '../../base/log.ts';
import type { Descriptor } from '../oci.ts';
import type { ImageSource } from '../source.ts';
import type { Gathered } from './gather.ts';
import type { CopyEnd, CopySink, OpenPart } from './sink.ts';

/** Parts in work at a time, as upstream has it. */
const PARTS_AT_ONCE = 5;

export interface CopyTotals {
  /** parts and bytes by how they came to their place */
  parts: Record<CopyEnd, number>;
  bytes: Record<CopyEnd, number>;
}

/** A part that does not come from the source's layers, such as a blob of a backend. */
export type OpenOther = (descriptor: Descriptor) => OpenPart | undefined;

/** Run works with at most `width` at a time; the first failure stops new ones, and is thrown when the others have ended. */
export async function eachOf<T>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items.values();
  let failure: { error: unknown } | undefined;
  const lane = async (): Promise<void> => {
    for (const item of queue) {
      if (failure !== undefined) return;
      try {
        await work(item);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: width }, lane));
  if (failure !== undefined) throw failure.error;
}

/**
 * Copy what was gathered. The name of the target is set last.
 *
 * @returns what was copied, and what was there already
 */
export async function copyImage(
  gathered: Gathered,
  source: ImageSource,
  sink: CopySink,
  context: { logger: Logger; signal: AbortSignal },
  other: OpenOther = () => undefined,
): Promise<CopyTotals> {
  const { logger } = context;
  const stop = new AbortController();
  const signal = AbortSignal.any([context.signal, stop.signal]);
  const zero = (): Record<CopyEnd, number> => ({ exists: 0, mounted: 0, copied: 0 });
  const totals: CopyTotals = { parts: zero(), bytes: zero() };
  const layers = new Map<string, Descriptor>();
  for (const { manifest } of gathered.manifests)
    for (const layer of manifest.layers) layers.set(layer.digest, layer);
  await eachOf([...layers.values()], sink.ordered ? 1 : PARTS_AT_ONCE, async (layer) => {
    signal.throwIfAborted();
    try {
      const open = other(layer) ?? ((): AsyncIterable<Uint8Array> => source.layer(layer).open(signal));
      const end = await sink.putBlob(layer, open, signal);
      totals.parts[end]++;
      totals.bytes[end] += layer.size;
      logger.info(`layer ${layer.digest} ${end}, ${layer.size} bytes`);
    } catch (error) {
      stop.abort(error);
      throw error;
    }
  });
  for (const { manifest, bytes, descriptor } of gathered.manifests) {
    if (!layers.has(manifest.config.digest))
      await sink.putDocument(await source.document(manifest.config, signal), manifest.config, signal);
    if (descriptor.digest !== gathered.root.descriptor.digest)
      await sink.putDocument(bytes, descriptor, signal);
  }
  for (const { bytes, descriptor } of gathered.indexes)
    if (descriptor.digest !== gathered.root.descriptor.digest)
      await sink.putDocument(bytes, descriptor, signal);
  await sink.finish(gathered.root.bytes, gathered.root.descriptor, signal);
  return totals;
}
