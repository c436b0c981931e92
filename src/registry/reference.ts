// Image references as Docker users write them: `ubuntu`, `host:5000/name:tag@sha256:…`.
// Source: distribution/reference grammar (docs of the distribution project); defaults of Docker Hub.
import { UsageError } from '../base/errors.ts';

/** A complete reference. `tag` and `digest` may both be there; the digest then decides. */
export interface Reference {
  /** host and port, `docker.io` for Docker Hub */
  host: string;
  /** `library/ubuntu` */
  repository: string;
  tag: string | undefined;
  /** `sha256:<hex>` */
  digest: string | undefined;
}

export const DOCKER_HUB = 'docker.io';
const LEGACY_HUB = 'index.docker.io';
/** Where the API of Docker Hub answers. */
const HUB_API = 'registry-1.docker.io';
const DEFAULT_TAG = 'latest';

/** Longest name that the grammar allows, host included. */
const MAX_REFERENCE_NAME = 255;

const COMPONENT = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const LABEL = '[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?';
const HOST = new RegExp(`^(?:${LABEL}(?:\\.${LABEL})*|\\[[0-9A-Fa-f:]+\\])(?::[0-9]{1,5})?$`);
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const DIGEST = /^(?:sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})$/;

/** True for `sha256:<64 hex>` and the longer SHA-2 forms. */
export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/** True for a name that a registry accepts as repository. */
export function isRepository(text: string): boolean {
  return text.length <= MAX_REFERENCE_NAME && REPOSITORY.test(text);
}

/** True for a tag. */
export function isTag(text: string): boolean {
  return TAG.test(text);
}

function bad(text: string, problem: string, hint?: string): UsageError {
  return new UsageError(`reference ${JSON.stringify(text)}: ${problem}`, {
    exitCode: 1,
    ...(hint === undefined ? {} : { hint }),
  });
}

/** The first part is a host when it could not be a Docker Hub user: it has a dot, a port, capitals, or is localhost. */
function splitHost(name: string): [host: string, rest: string] {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isHost = /[.:[]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  if (!isHost) return [DOCKER_HUB, name];
  return [first === LEGACY_HUB ? DOCKER_HUB : first, name.slice(slash + 1)];
}

/**
 * Parse a reference.
 *
 * @param options.defaultTag false: leave `tag` undefined when neither tag nor digest is given
 * @throws UsageError EINVAL, exit 1  it breaks the grammar
 */
export function parseReference(text: string, options: { defaultTag?: boolean } = {}): Reference {
  if (/^https?:\/\//.test(text))
    throw bad(text, 'must not begin with a scheme', 'leave http:// or https:// away');
  if (/^[a-f0-9]{64}$/.test(text)) throw bad(text, 'is the id of an image, not a name');
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  const named = at < 0 ? text : text.slice(0, at);
  if (digest !== undefined && !DIGEST.test(digest)) throw bad(text, `${JSON.stringify(digest)} is no digest`);
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  const tag = colon < 0 ? undefined : named.slice(colon + 1);
  const name = colon < 0 ? named : named.slice(0, colon);
  if (tag !== undefined && !TAG.test(tag)) throw bad(text, `${JSON.stringify(tag)} is no tag`);
  const [host, rest] = splitHost(name);
  if (!HOST.test(host)) throw bad(text, `${JSON.stringify(host)} is no host`);
  const repository = host === DOCKER_HUB && rest !== '' && !rest.includes('/') ? `library/${rest}` : rest;
  if (!REPOSITORY.test(repository)) {
    const hint = repository !== repository.toLowerCase() ? 'names of repositories are lower case' : undefined;
    throw bad(text, `${JSON.stringify(rest)} is no repository name`, hint);
  }
  if (host.length + 1 + repository.length > MAX_REFERENCE_NAME) {
    throw bad(
      text,
      `is ${host.length + 1 + repository.length} bytes long, the limit is ${MAX_REFERENCE_NAME}`,
    );
  }
  const implied = digest === undefined && options.defaultTag !== false ? DEFAULT_TAG : undefined;
  return { host, repository, tag: tag ?? implied, digest };
}

/** The complete text, `docker.io/library/ubuntu:latest`. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`;
  return `${reference.host}/${reference.repository}${tag}${digest}`;
}

/** Host that answers the API for a host of references. */
export function apiHost(host: string): string {
  return host === DOCKER_HUB || host === LEGACY_HUB ? HUB_API : host;
}
