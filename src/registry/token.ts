// Bearer tokens of a registry: one request to the realm of its challenge.
// Source: distribution spec "token" and "oauth2"; blob-and-cache.md 21.10 for the order that nydusd uses.
import { RegistryError } from '../base/errors.ts';
import { MAX_REGISTRY_JSON } from '../base/limits.ts';
import type { TokenSource } from './challenge.ts';
import { answerError } from './answer-error.ts';
import type { HttpAnswer, HttpClient } from './http.ts';
import { redactUrl } from './redact.ts';

/** A token and the time it lives, as the server says; undefined when it does not say. */
export interface Token {
  value: string;
  ttlSeconds: number | undefined;
}

export interface TokenRequest {
  source: TokenSource;
  /** scopes, separated by blanks */
  scope: string;
  clientId: string;
  /** value of the Authorization header for the token server */
  authorization?: string | undefined;
  /** OAuth2 refresh token, sent instead of user and password */
  identityToken?: string | undefined;
  signal?: AbortSignal | undefined;
  totalTimeoutMs?: number;
}

function parseToken(bytes: Buffer, where: { method: string; url: string; status: number }): Token {
  const refuse = (problem: string): RegistryError => new RegistryError({ ...where, codes: [] }, problem);
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch {
    throw refuse('the token server answered no JSON');
  }
  const { token, access_token, expires_in } = (value ?? {}) as Record<string, unknown>;
  const text = typeof token === 'string' && token !== '' ? token : access_token;
  // what goes into a header must not end it
  if (typeof text !== 'string' || !/^[\x21-\x7e]+$/.test(text))
    throw refuse('the token server answered no token');
  const ttl = typeof expires_in === 'number' && expires_in > 0 ? expires_in : undefined;
  return { value: text, ttlSeconds: ttl };
}

async function read(answer: HttpAnswer, method: string, url: URL): Promise<Token> {
  if (answer.status < 200 || answer.status > 299) throw await answerError(answer, method, url);
  const where = { method, url: redactUrl(url), status: answer.status };
  return parseToken(await answer.bytes(MAX_REGISTRY_JSON), where);
}

/** Ask with a form (OAuth2 where there is an identity token). @throws RegistryError */
export async function postForToken(http: HttpClient, request: TokenRequest): Promise<Token> {
  const url = new URL(request.source.realm);
  const form = new URLSearchParams({
    service: request.source.service,
    scope: request.scope,
    client_id: request.clientId,
  });
  if (request.identityToken !== undefined) {
    form.set('grant_type', 'refresh_token');
    form.set('refresh_token', request.identityToken);
  }
  const headers: Record<string, string> = { 'content-type': 'application/x-www-form-urlencoded' };
  if (request.authorization !== undefined && request.identityToken === undefined) {
    headers['authorization'] = request.authorization;
  }
  const { signal, totalTimeoutMs = 0 } = request;
  const answer = await http.send({
    method: 'POST',
    url,
    headers,
    body: form.toString(),
    signal,
    totalTimeoutMs,
  });
  return read(answer, 'POST', url);
}

/** Ask with a query, the way every registry with tokens knows. @throws RegistryError */
export async function getToken(http: HttpClient, request: TokenRequest): Promise<Token> {
  const url = new URL(request.source.realm);
  if (request.source.service !== '') url.searchParams.set('service', request.source.service);
  for (const scope of request.scope.split(' ')) if (scope !== '') url.searchParams.append('scope', scope);
  url.searchParams.set('client_id', request.clientId);
  const headers: Record<string, string> = {};
  if (request.authorization !== undefined) headers['authorization'] = request.authorization;
  const { signal, totalTimeoutMs = 0 } = request;
  return read(await http.send({ method: 'GET', url, headers, signal, totalTimeoutMs }), 'GET', url);
}
