// What a conversion that was killed leaves to the next one: which layers are done, and their bootstraps. Lines of JSON
// are appended; a line that a crash cut off is no line. Digests and sizes only: nothing secret, still 0600.
import { createHash } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { mkdir, open, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MAX_LAYERS } from '../base/limits.ts';
import { isSha256 } from './oci.ts';

const STATE_FILE = 'state.jsonl';
/** A line is some 250 bytes; a file beyond this is none of ours. */
const MAX_STATE_SIZE = 512 * MAX_LAYERS;

/** A layer that is converted, and in the target. */
export interface DoneLayer {
  /** digest of the source layer */
  source: string;
  /** digest of the chunk dictionary it was built with, '' for none */
  variant: string;
  /** blob as the manifest names it */
  digest: string;
  size: number;
  /** file with the layer's bootstrap, named by the hex digest of the blob */
  bootstrap: string;
}

/** A member of the archive that is being written. */
export interface DoneMember {
  digest: string;
  /** offset in the archive behind it */
  end: number;
}

type Line = Record<string, unknown>;

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function parseLine(text: string): Line | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Line) : undefined;
  } catch {
    return undefined;
  }
}

async function readLines(path: string): Promise<Line[]> {
  const file = await open(path, 'r').catch(() => undefined);
  if (file === undefined) return [];
  try {
    if ((await file.stat()).size > MAX_STATE_SIZE) return [];
    const lines = (await file.readFile('utf8')).split('\n');
    // without its newline the last one is not complete
    lines.pop();
    return lines.map(parseLine).filter((line) => line !== undefined);
  } finally {
    await file.close();
  }
}

/** The state of one conversion in its folder. */
export class ConvertState {
  readonly #file: string;
  readonly #folder: string;
  readonly #layers = new Map<string, DoneLayer & { check: string }>();
  #drafts = 0;
  /** members of a target archive, in order */
  readonly members: DoneMember[] = [];

  private constructor(folder: string) {
    this.#folder = join(folder, 'layers');
    this.#file = join(folder, STATE_FILE);
  }

  /** Open the state in a folder of the conversion's own; what is there is taken up. */
  static async open(folder: string): Promise<ConvertState> {
    const state = new ConvertState(folder);
    await mkdir(state.#folder, { recursive: true, mode: 0o700 });
    const lines = await readLines(state.#file);
    for (const line of lines) state.#take(line);
    // a line that was cut off must not swallow the next one
    const whole = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
    await writeFile(`${state.#file}.new`, whole, { mode: 0o600 });
    await rename(`${state.#file}.new`, state.#file);
    return state;
  }

  #take(line: Line): void {
    const { source, variant, digest, size, check, end } = line;
    if (!isSha256(digest)) return;
    if (isCount(end)) this.members.push({ digest, end });
    else if (isSha256(source) && isCount(size) && typeof check === 'string' && typeof variant === 'string')
      this.#keep({ source, variant, digest, size, bootstrap: this.bootstrapPath(digest), check });
  }

  #keep(layer: DoneLayer & { check: string }): void {
    this.#layers.set(`${layer.source} ${layer.variant}`, layer);
  }

  #append(line: Line): void {
    appendFileSync(this.#file, `${JSON.stringify(line)}\n`, { mode: 0o600 });
  }

  /** Layers that are done. */
  get size(): number {
    return this.#layers.size;
  }

  /** Where the bootstrap of a layer's blob is kept. */
  bootstrapPath(digest: string): string {
    return join(this.#folder, digest.slice(digest.indexOf(':') + 1));
  }

  /** Keep a bootstrap. @returns its path */
  async keepBootstrap(digest: string, bytes: Uint8Array): Promise<string> {
    const path = this.bootstrapPath(digest);
    // two source layers may become the same blob at the same time
    const draft = `${path}.new${this.#drafts++}`;
    await writeFile(draft, bytes, { mode: 0o600 });
    await rename(draft, path);
    return path;
  }

  /** A layer that was done before, its bootstrap as it was then. */
  async find(source: string, variant: string): Promise<DoneLayer | undefined> {
    const found = this.#layers.get(`${source} ${variant}`);
    if (found === undefined) return undefined;
    const bytes = await readFile(found.bootstrap).catch(() => undefined);
    return bytes !== undefined && sha256(bytes) === found.check ? found : undefined;
  }

  /** Note that a layer is done: its blob is in the target, its bootstrap is kept. */
  async add(layer: Omit<DoneLayer, 'bootstrap'>): Promise<void> {
    const { source, variant, digest, size } = layer;
    const bootstrap = this.bootstrapPath(digest);
    const check = sha256(await readFile(bootstrap));
    this.#keep({ source, variant, digest, size, bootstrap, check });
    this.#append({ source, variant, digest, size, check });
  }

  /** Note a member of the archive. */
  addMember(digest: string, end: number): void {
    this.members.push({ digest, end });
    this.#append({ digest, end });
  }
}
