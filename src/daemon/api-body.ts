// Request bodies -> values, refused in the words of upstream's decoder. Source: nydusd.md 5.2, golden/api.
import { JsonSyntaxError, parseJson, placeOf, type JsonNode } from '../storage/config-parse-json.ts';
import { ApiError } from './api-error.ts';

/** One field of a body. */
export interface BodyField {
  type: 'string' | 'strings';
  required?: boolean;
}

/** A decoded body: strings and string lists by key; absent fields are absent. */
export type Body = Record<string, string | string[]>;

function unexpected(node: JsonNode, text: string): string {
  switch (node.kind) {
    case 'object':
      return 'map';
    case 'array':
      return 'sequence';
    case 'null':
      return 'null';
    case 'boolean':
      return `boolean \`${node.value}\``;
    case 'string':
      return `string ${JSON.stringify(node.value)}`;
    case 'number': {
      const digits = text.slice(node.start, node.end);
      return /[.eE]/.test(digits) ? `floating point \`${digits}\`` : `integer \`${digits}\``;
    }
  }
}

function fail(text: string, problem: string, offset: number): never {
  const { line, column } = placeOf(text, offset);
  throw ApiError.parseBody(problem, line, column);
}

function wrongType(text: string, node: JsonNode, expected: string): never {
  // maps and sequences are refused before their first character is consumed
  const offset = node.kind === 'object' || node.kind === 'array' ? node.start : node.end;
  return fail(text, `invalid type: ${unexpected(node, text)}, expected ${expected}`, offset);
}

function parse(text: string): JsonNode {
  try {
    return parseJson(text);
  } catch (error) {
    if (error instanceof JsonSyntaxError) throw ApiError.parseBody(error.message, error.line, error.column);
    throw error;
  }
}

function stringOf(text: string, node: JsonNode): string {
  return typeof node.value === 'string' ? node.value : wrongType(text, node, 'a string');
}

function fieldValue(text: string, node: JsonNode, field: BodyField): string | string[] {
  if (field.type === 'string') return stringOf(text, node);
  if (node.items === undefined) return wrongType(text, node, 'a sequence');
  return node.items.map((item) => stringOf(text, item));
}

/**
 * Decode a body as a structure.
 *
 * @param name   upstream's name of the structure, shown in messages
 * @param fields in order of declaration: the first missing one is reported; keys not listed are ignored
 * @throws ApiError 400 ParseBody
 */
export function decodeStruct(text: string, name: string, fields: Record<string, BodyField>): Body {
  const root = parse(text);
  const count = Object.keys(fields).length;
  if (root.items !== undefined) {
    const elements = `${count} element${count === 1 ? '' : 's'}`;
    fail(text, `invalid length ${root.items.length}, expected struct ${name} with ${elements}`, root.end);
  }
  if (root.members === undefined) wrongType(text, root, `struct ${name}`);
  const body: Body = {};
  for (const { key, end, node } of root.members) {
    const field = Object.hasOwn(fields, key) ? fields[key] : undefined;
    if (field === undefined) continue;
    if (Object.hasOwn(body, key)) fail(text, `duplicate field \`${key}\``, end);
    if (node.kind === 'null' && field.required !== true && field.type === 'strings') continue;
    body[key] = fieldValue(text, node, field);
  }
  for (const [key, field] of Object.entries(fields)) {
    if (field.required === true && !Object.hasOwn(body, key)) {
      fail(text, `missing field \`${key}\``, root.end);
    }
  }
  return body;
}

/** Decode a body as a map of strings. ApiError 400 ParseBody. */
export function decodeStringMap(text: string): Map<string, string> {
  const root = parse(text);
  if (root.members === undefined) wrongType(text, root, 'a map');
  return new Map(root.members.map(({ key, node }) => [key, stringOf(text, node)]));
}
