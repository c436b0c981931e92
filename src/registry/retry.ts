// When to try again: back-off with jitter, and what `Retry-After` asks for. Source: RFC 9110 section 10.2.3.

/** Longest wait that a server may ask for, in milliseconds. */
const MAX_RETRY_AFTER_MS = 60_000;

/** Milliseconds of a `Retry-After` header (seconds or a date), at most a minute; undefined when absent. */
export function parseRetryAfter(header: string, nowMs: number): number | undefined {
  const text = header.trim();
  if (/^[0-9]{1,9}$/.test(text)) return Math.min(Number(text) * 1000, MAX_RETRY_AFTER_MS);
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : Math.min(Math.max(0, at - nowMs), MAX_RETRY_AFTER_MS);
}

/**
 * Milliseconds before the next attempt: doubles from `firstMs` to `capMs`, half of it random, so that many clients
 * do not come back together.
 *
 * @param failed attempts so far, 1 or more
 * @param random 0 to 1
 */
export function backoff(failed: number, firstMs: number, capMs: number, random: number): number {
  const full = Math.min(capMs, firstMs * 2 ** Math.min(failed - 1, 30));
  return full / 2 + (full / 2) * random;
}

/** Wait, or reject with the reason of `signal`. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(signal.reason as Error);
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
    return undefined;
  });
}
