// A JSON value in the debug form that upstream's client prints, which scripts match on. Source: golden cli/mistakes.jsonl.
import { debugString } from '../../daemon/api-error.ts';
import type { Json } from './api.ts';

/** `Object {"code": String("UNDEFINED")}`. */
export function debugJson(value: Json): string {
  if (value === null) return 'Null';
  if (typeof value === 'boolean') return `Bool(${value})`;
  if (typeof value === 'number') return `Number(${value})`;
  if (typeof value === 'string') return `String(${debugString(value)})`;
  if (Array.isArray(value)) return `Array [${value.map(debugJson).join(', ')}]`;
  const keys = Object.keys(value).sort();
  return `Object {${keys.map((key) => `${debugString(key)}: ${debugJson(value[key] ?? null)}`).join(', ')}}`;
}
