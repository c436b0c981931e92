// An image in OCI layout, as a directory or a tar archive. Source: OCI image-spec 1.1, image-layout.md.
import { FormatError, UsageError } from '../base/errors.ts';
import { readRange, readSmall, type LocalFiles } from './local-files.ts';
import {
  Annotation,
  documentType,
  hexOf,
  MAX_DOCUMENT,
  MediaType,
  parseIndex,
  parseObject,
  type Descriptor,
} from './oci.ts';
import { verified, verifyBytes, type ImageSource, type LayerInput } from './source.ts';
import type { WantedName } from './wanted-name.ts';

const LAYOUT_FILE = 'oci-layout';

/** True when the files are an OCI layout. */
export async function isLayout(files: LocalFiles): Promise<boolean> {
  return (await files.find(LAYOUT_FILE)) !== undefined && (await files.find('index.json')) !== undefined;
}

function nameOf(entry: Descriptor): string | undefined {
  return entry.annotations?.[Annotation.containerdImageName] ?? entry.annotations?.[Annotation.ociRefName];
}

/** The entry that the user means; the only one whatever it is called. */
function choose(entries: readonly Descriptor[], wanted: WantedName, place: string): Descriptor {
  const matching = entries.filter((entry) =>
    [entry.annotations?.[Annotation.containerdImageName], entry.annotations?.[Annotation.ociRefName]].some(
      (name) => name !== undefined && wanted.matches(name),
    ),
  );
  const found = matching[0] ?? (entries.length === 1 ? entries[0] : undefined);
  if (found !== undefined) return found;
  const names = entries.map((entry) => nameOf(entry) ?? entry.digest);
  throw new UsageError(`${place} holds ${entries.length} images, none is called ${wanted.text}`, {
    exitCode: 1,
    hint: names.length === 0 ? 'the layout is empty' : `it holds ${names.slice(0, 20).join(', ')}`,
  });
}

class LayoutSource implements ImageSource {
  readonly name: string;
  readonly remote = false;
  readonly #files: LocalFiles;
  readonly #wanted: WantedName;

  constructor(files: LocalFiles, wanted: WantedName) {
    this.name = files.name;
    this.#files = files;
    this.#wanted = wanted;
  }

  #path(digest: string): string {
    return `blobs/sha256/${hexOf(digest)}`;
  }

  async resolve(): Promise<{ descriptor: Descriptor; bytes: Uint8Array }> {
    const layout = parseObject(await readSmall(this.#files, LAYOUT_FILE, MAX_DOCUMENT), LAYOUT_FILE);
    const version = layout['imageLayoutVersion'];
    if (typeof version !== 'string' || !version.startsWith('1.'))
      throw new FormatError(
        { struct: LAYOUT_FILE, field: 'imageLayoutVersion' },
        `is ${JSON.stringify(version)}, expected 1.0.0`,
      );
    const index = parseIndex(await readSmall(this.#files, 'index.json', MAX_DOCUMENT), MediaType.ociIndex);
    const entry = choose(index.manifests, this.#wanted, this.name);
    const bytes = await this.document(entry);
    const { digest, size } = entry;
    return { descriptor: { mediaType: documentType(bytes, entry.mediaType), digest, size }, bytes };
  }

  async document(descriptor: Descriptor): Promise<Uint8Array> {
    const bytes = await readSmall(this.#files, this.#path(descriptor.digest), MAX_DOCUMENT);
    verifyBytes(bytes, descriptor, `${this.name}: ${this.#path(descriptor.digest)}`);
    return bytes;
  }

  layer(descriptor: Descriptor): LayerInput {
    const path = this.#path(descriptor.digest);
    const files = this.#files;
    const find = async () => {
      const range = await files.find(path);
      if (range === undefined) throw new FormatError({ struct: files.name }, `${path} is missing`);
      return range;
    };
    return {
      open: async function* (signal) {
        yield* verified(readRange(await find(), signal), descriptor, `${files.name}: ${path}`);
      },
    };
  }

  async close(): Promise<void> {}
}

/** The image called `wanted` in an OCI layout. */
export function layoutSource(files: LocalFiles, wanted: WantedName): ImageSource {
  return new LayoutSource(files, wanted);
}
