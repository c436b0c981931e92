// Where a registry keeps the data of a blob: redirect targets, kept until their signature ends.
// Source: blob-and-cache.md 21.10; query names of AWS SigV4 and V2, Google Cloud Storage, Azure SAS, CloudFront.

/** A target is not used in the last seconds of its life: the read itself takes time. */
const MARGIN_MS = 10_000;
/** Blobs whose target is kept. */
const MAX_TARGETS = 4096;

function compactDate(text: string): number {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text);
  if (match === null) return NaN;
  const [, year, month, day, hour, minute, second] = match.map(Number);
  return Date.UTC(year ?? 0, (month ?? 1) - 1, day, hour, minute, second);
}

/** When a signed URL ends, in milliseconds since 1970; undefined when it does not say. */
export function expiryOf(url: URL): number | undefined {
  const query = new Map([...url.searchParams].map(([name, value]) => [name.toLowerCase(), value]));
  for (const vendor of ['x-amz-', 'x-goog-']) {
    const end =
      compactDate(query.get(`${vendor}date`) ?? '') + Number(query.get(`${vendor}expires`) ?? 'x') * 1000;
    if (Number.isFinite(end)) return end;
  }
  const epoch = query.get('expires') ?? query.get('exp') ?? '';
  if (/^[0-9]{9,11}$/.test(epoch)) return Number(epoch) * 1000;
  const azure = query.has('sig') ? Date.parse(query.get('se') ?? '') : NaN;
  return Number.isNaN(azure) ? undefined : azure;
}

/** Targets by blob id. */
export class RedirectCache {
  readonly #targets = new Map<string, { url: URL; until: number }>();
  readonly #clock: () => number;

  constructor(clock: () => number) {
    this.#clock = clock;
  }

  get(blobId: string): URL | undefined {
    const target = this.#targets.get(blobId);
    if (target === undefined || this.#clock() < target.until) return target?.url;
    this.#targets.delete(blobId);
    return undefined;
  }

  set(blobId: string, url: URL): void {
    const end = expiryOf(url);
    const until = end === undefined ? Infinity : end - MARGIN_MS;
    if (until <= this.#clock()) return;
    const oldest = this.#targets.size >= MAX_TARGETS ? this.#targets.keys().next().value : undefined;
    if (oldest !== undefined) this.#targets.delete(oldest);
    this.#targets.set(blobId, { url, until });
  }

  /** Forget a target that was refused, unless another read replaced it already. */
  drop(blobId: string, url: URL): void {
    if (this.#targets.get(blobId)?.url === url) this.#targets.delete(blobId);
  }
}
