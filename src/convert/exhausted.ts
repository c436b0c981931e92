// Failures of what was tried as often as the user allows, so that who asked for it does not begin all of it again.

const known = new WeakSet<Error>();

/** Note that an error is the last of several tries. @returns the error */
export function exhausted<T extends Error>(error: T): T {
  known.add(error);
  return error;
}

/** Was the work that failed so tried as often as it may be? */
export function isExhausted(error: unknown): boolean {
  return error instanceof Error && known.has(error);
}
