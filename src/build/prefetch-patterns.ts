// Prefetch patterns: the list a caller writes to stdin. What they select is decided in prefetch-table.ts.
// Source: nydus-image-and-nydusify.md 2.6.

function covers(pattern: string, path: string): boolean {
  return path === pattern || pattern === '/' || path.startsWith(`${pattern}/`);
}

/** One way to write a path: no doubled or trailing slashes. */
function normalise(path: string): string {
  return `/${path
    .split('/')
    .filter((part) => part !== '')
    .join('/')}`;
}

/**
 * Patterns of a prefetch list: one absolute path a line, white space around it dropped.
 * A line that is relative or empty, or equal to or below an earlier pattern, is skipped with a warning.
 */
export function parsePrefetchList(text: string, warn: (message: string) => void): string[] {
  const patterns: string[] = [];
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  for (const line of lines) {
    const path = line.trim();
    if (!path.startsWith('/')) {
      warn(`prefetch path "${path}" is not absolute, skipped`);
      continue;
    }
    const pattern = normalise(path);
    const earlier = patterns.find((known) => covers(known, pattern));
    if (earlier === undefined) patterns.push(pattern);
    else warn(`prefetch path "${path}" is covered by "${earlier}", skipped`);
  }
  return patterns;
}
