// An answer that is no success, as an error: the registry's own codes, and what the user can do next.
// Source: OCI distribution spec 1.1, "Error Codes".
import { RegistryError } from '../base/errors.ts';
import { MAX_ERROR_BODY } from '../base/limits.ts';
import type { HttpAnswer } from './http.ts';
import { redactUrl } from './redact.ts';
import { parseRetryAfter } from './retry.ts';

/** Statuses after which the same request may succeed. */
const TRANSIENT = new Set([408, 425, 429, 500, 502, 503, 504]);

const HINTS: Record<number, string> = {
  401: 'check the credentials: docker login writes them',
  403: 'check that these credentials may use the repository',
  404: 'check the repository, the tag or the digest',
  413: 'the registry or a proxy before it limits the size of uploads',
  429: 'the registry limits the rate: wait, or use credentials',
};

interface Problem {
  code: string;
  message: string;
}

function problemsOf(bytes: Buffer): Problem[] {
  try {
    const { errors } = JSON.parse(bytes.toString()) as { errors?: unknown };
    if (!Array.isArray(errors)) return [];
    return errors.slice(0, 10).map((entry: unknown) => {
      const { code, message } = (entry ?? {}) as Record<string, unknown>;
      // printable and short: a foreign server writes them
      const clean = (value: unknown): string =>
        (typeof value === 'string' ? value : '').replace(/[^\x20-\x7e]/g, '?').slice(0, 200);
      return { code: clean(code), message: clean(message) };
    });
  } catch {
    return [];
  }
}

/** Make an error of an answer and end its body. */
export async function answerError(answer: HttpAnswer, method: string, url: URL): Promise<RegistryError> {
  let problems: Problem[] = [];
  const { status } = answer;
  if (answer.header('content-type').includes('json') && (answer.contentLength ?? 0) <= MAX_ERROR_BODY) {
    problems = problemsOf(await answer.bytes(MAX_ERROR_BODY).catch(() => Buffer.alloc(0)));
  } else {
    await answer.discard();
  }
  const listed = problems
    .map(({ code, message }) => (message === '' ? code : `${code} (${message})`))
    .join(', ');
  const hint = HINTS[status];
  return new RegistryError(
    { method, url: redactUrl(url), status, codes: problems.map(({ code }) => code) },
    `status ${status}${listed === '' ? '' : `: ${listed}`}`,
    {
      ...(hint === undefined ? {} : { hint }),
      retryable: TRANSIENT.has(status),
      retryAfterMs: parseRetryAfter(answer.header('retry-after'), Date.now()),
    },
  );
}
