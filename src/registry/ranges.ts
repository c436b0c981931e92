// `Content-Range` of an answer. Source: RFC 9110 section 14.4.

export interface ContentRange {
  start: number;
  /** exclusive */
  end: number;
  /** undefined when the server does not say */
  total: number | undefined;
}

/** Parse `bytes 0-9/100`; undefined when it is absent or makes no sense. */
export function parseContentRange(header: string): ContentRange | undefined {
  const match = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15}|\*)$/i.exec(header.trim());
  if (match === null) return undefined;
  const start = Number(match[1]);
  const end = Number(match[2]) + 1;
  const total = match[3] === '*' ? undefined : Number(match[3]);
  return end <= start || (total !== undefined && end > total) ? undefined : { start, end, total };
}

/** Total of `bytes *\/100`, the Content-Range of a 416. */
export function parseUnsatisfied(header: string): number | undefined {
  const match = /^bytes \*\/([0-9]{1,15})$/i.exec(header.trim());
  return match === null ? undefined : Number(match[1]);
}
