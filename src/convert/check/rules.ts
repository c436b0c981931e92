// The rules of `nydusify check` that need no mount. Source: nydus-image-and-nydusify.md 9.4; the texts are upstream's.
import { isDeepStrictEqual } from 'node:util';
import { checkImage } from '../../rafs/check.ts';
import { effectiveBlobId } from '../../rafs/blob-id.ts';
import { openBootstrap } from '../../rafs/open.ts';
import { Annotation, MediaType } from '../oci.ts';
import type { ParsedImage, ParsedReference } from './parsed-image.ts';

/** Annotation of the layers of zran images, which are no blobs of the table. */
const REF = 'containerd.io/snapshot/nydus-ref';

function ociProblems({ manifest, diffIds }: ParsedImage): string[] {
  if (diffIds.length === manifest.layers.length) return [];
  return [countProblem(diffIds.length, manifest.layers.length)];
}

function countProblem(diffIds: number, layers: number): string {
  return `invalid diff ids in image config: ${diffIds} (diff ids) != ${layers} (layers)`;
}

function nydusProblems({ manifest, diffIds }: ParsedImage): string[] {
  const problems: string[] = [];
  const last = manifest.layers.length - 1;
  for (const [at, { mediaType, annotations, digest }] of manifest.layers.entries()) {
    if (at === last) {
      if (annotations?.[Annotation.bootstrap] !== 'true')
        problems.push('invalid bootstrap layer in nydus image manifest');
    } else if (mediaType !== MediaType.nydusBlob || annotations?.[Annotation.blob] !== 'true') {
      problems.push(`invalid blob layer in nydus image manifest: ${digest}`);
    }
  }
  if (diffIds.length !== manifest.layers.length)
    problems.push(countProblem(diffIds.length, manifest.layers.length));
  return problems;
}

/** The `config` object without what engines write differently. */
function runConfig({ config }: ParsedImage): Record<string, unknown> {
  const { ArgsEscaped: _, ...rest } = (config['config'] ?? {}) as Record<string, unknown>;
  return Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null));
}

function configDifferences(source: ParsedImage, target: ParsedImage): string[] {
  const [left, right] = [runConfig(source), runConfig(target)];
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])].sort();
  return keys
    .filter((key) => !isDeepStrictEqual(left[key], right[key]))
    .map((key) => `${key}: ${JSON.stringify(left[key])} != ${JSON.stringify(right[key])}`);
}

/** The image that the rules look at: the OCI one where a reference holds both. */
export function judged(parsed: ParsedReference): ParsedImage | undefined {
  return parsed.oci ?? parsed.nydus;
}

/** Rule `manifest`. @returns problems */
export function manifestProblems(source: ParsedReference | undefined, target: ParsedReference): string[] {
  const problems: string[] = [];
  for (const parsed of [source, target]) {
    if (parsed?.oci !== undefined) problems.push(...ociProblems(parsed.oci));
    if (parsed?.nydus !== undefined) problems.push(...nydusProblems(parsed.nydus));
  }
  const [left, right] = [source === undefined ? undefined : judged(source), judged(target)];
  if (left !== undefined && right !== undefined) {
    const differences = configDifferences(left, right);
    if (differences.length > 0)
      problems.push(
        `source image config should be equal with target image config: ${differences.join('; ')}`,
      );
  }
  return problems;
}

/** Blobs of a bootstrap that is whole, and what is wrong with one that is not. */
export function readBootstrap(path: string): { blobs: string[]; problems: string[]; version: number } {
  const opened = openBootstrap(path);
  try {
    const report = checkImage(opened.image);
    return {
      blobs: opened.image.blobs.map((blob) => effectiveBlobId(blob, undefined)),
      problems: report.problems.map(({ place, problem }) => `${place}: ${problem}`),
      version: opened.image.super.version,
    };
  } finally {
    opened.close();
  }
}

/** Rule `bootstrap`: every blob of the table must be a layer, where the image has blob layers at all. */
export function blobProblems(image: ParsedImage, blobs: readonly string[]): string[] {
  const layers = image.manifest.layers
    .slice(0, -1)
    .filter(({ annotations }) => annotations?.[REF] === undefined);
  if (layers.length === 0) return [];
  const known = new Set(layers.map(({ digest }) => digest));
  const missing = blobs.filter((id) => !known.has(`sha256:${id}`));
  if (missing.length === 0) return [];
  return [
    `nydus blobs in the blob table of bootstrap(${blobs.length}) should all appear in the layers of ` +
      `manifest(${layers.length}), missing: ${missing.join(', ')}`,
  ];
}
