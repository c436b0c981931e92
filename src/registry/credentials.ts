// Credentials of Docker's config.json: stored ones, and helper programs that keep them.
// Source: docker CLI documentation "docker login" (credential stores, helpers), docker-credential-helpers protocol.
import { readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { messageOf, UsageError } from '../base/errors.ts';
import { MAX_CONFIG_SIZE } from '../base/limits.ts';
import { DOCKER_HUB } from './reference.ts';

/** User and password, or a token that stands for them. */
export type Credentials = { username: string; password: string } | { identityToken: string };

/** Who knows credentials by the host of a reference. */
export interface CredentialSource {
  lookup(host: string): Promise<Credentials | undefined>;
}

/** Nobody has credentials. */
export const anonymous: CredentialSource = { lookup: () => Promise.resolve(undefined) };

/** The same credentials for every host. */
export function fixedCredentials(credentials: Credentials): CredentialSource {
  return { lookup: () => Promise.resolve(credentials) };
}

const HUB_KEY = 'https://index.docker.io/v1/';
/** Time and output of a helper. */
const HELPER_TIMEOUT_MS = 30_000;
const HELPER_OUTPUT = 64 * 1024;

/** Host that a key of `auths` or `credHelpers` stands for. */
function hostOfKey(key: string): string {
  const host = key.replace(/^https?:\/\//, '').split('/')[0] ?? '';
  return host === 'index.docker.io' || host === 'registry-1.docker.io' ? DOCKER_HUB : host;
}

type Fields = Record<string, unknown>;
const fieldsOf = (value: unknown): Fields =>
  value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Fields) : {};
const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

/** What a helper said. */
export interface HelperEnd {
  status: number | null;
  stdout: string;
}

/** Run `docker-credential-<name> get` with the server on its standard input. */
async function runHelper(program: string, server: string): Promise<HelperEnd> {
  const { execFile } = process.getBuiltinModule('node:child_process');
  return new Promise((resolve, reject) => {
    const limits = { timeout: HELPER_TIMEOUT_MS, maxBuffer: HELPER_OUTPUT };
    const child = execFile(program, ['get'], limits, (error, stdout) => {
      const failed = error as (Error & { code?: unknown }) | null;
      if (failed !== null && typeof failed.code !== 'number') reject(failed);
      else resolve({ status: failed === null ? 0 : (failed.code as number), stdout });
    });
    // a helper that does not read its input is no reason to end
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(server);
  });
}

export interface DockerCredentialsOptions {
  env?: NodeJS.ProcessEnv;
  run?: (program: string, server: string) => Promise<HelperEnd>;
}

/** Credentials of a config.json. Read when first asked for; answers of helpers are kept. */
export class DockerCredentials implements CredentialSource {
  readonly #path: string;
  readonly #run: (program: string, server: string) => Promise<HelperEnd>;
  #config: Fields | undefined;
  readonly #found = new Map<string, Promise<Credentials | undefined>>();

  constructor(options: DockerCredentialsOptions = {}) {
    const env = options.env ?? process.env;
    const dir = env['DOCKER_CONFIG'] ?? '';
    this.#path = join(dir === '' ? join(env['HOME'] ?? homedir(), '.docker') : dir, 'config.json');
    this.#run = options.run ?? runHelper;
  }

  /** @throws UsageError EINVAL  the file is damaged, or a helper is missing or fails */
  lookup(host: string): Promise<Credentials | undefined> {
    let found = this.#found.get(host);
    if (found === undefined) {
      found = this.#lookup(host);
      this.#found.set(host, found);
    }
    return found;
  }

  async #lookup(host: string): Promise<Credentials | undefined> {
    const config = this.#load();
    const server = host === DOCKER_HUB ? HUB_KEY : host;
    const perHost = Object.entries(fieldsOf(config['credHelpers'])).find(([key]) => hostOfKey(key) === host);
    const helper = textOf(perHost?.[1]) || textOf(config['credsStore']);
    if (helper !== '') {
      const kept = await this.#ask(helper, server);
      if (kept !== undefined || perHost !== undefined) return kept;
    }
    const entries = Object.entries(fieldsOf(config['auths'])).filter(([key]) => hostOfKey(key) === host);
    // a key that is the host and nothing else wins over one with a path
    const entry = entries.find(([key]) => key === server) ?? entries[0];
    return entry === undefined ? undefined : this.#stored(entry[0], fieldsOf(entry[1]));
  }

  #load(): Fields {
    if (this.#config !== undefined) return this.#config;
    const stat = statSync(this.#path, { throwIfNoEntry: false });
    if (stat === undefined) return (this.#config = {});
    try {
      if (stat.size > MAX_CONFIG_SIZE) throw new Error(`${stat.size} bytes, the limit is ${MAX_CONFIG_SIZE}`);
      return (this.#config = fieldsOf(JSON.parse(readFileSync(this.#path, 'utf8'))));
    } catch (error) {
      // messages of JSON.parse quote the text, which holds passwords
      const why = error instanceof SyntaxError ? 'is no JSON' : messageOf(error);
      throw new UsageError(`cannot read the credentials of ${this.#path}: ${why}`, { exitCode: 1 });
    }
  }

  #stored(key: string, entry: Fields): Credentials | undefined {
    const identityToken = textOf(entry['identitytoken']);
    if (identityToken !== '') return { identityToken };
    const pair = Buffer.from(textOf(entry['auth']), 'base64').toString().replace(/\0+$/, '');
    const colon = pair.indexOf(':');
    if (pair !== '' && colon < 0) {
      throw new UsageError(`${this.#path}: auth of ${JSON.stringify(key)} is not base64 of user:password`, {
        exitCode: 1,
      });
    }
    const username = pair === '' ? textOf(entry['username']) : pair.slice(0, colon);
    const password = pair === '' ? textOf(entry['password']) : pair.slice(colon + 1);
    return username === '' ? undefined : { username, password };
  }

  async #ask(helper: string, server: string): Promise<Credentials | undefined> {
    const program = `docker-credential-${helper}`;
    const fail = (why: string, cause?: unknown): UsageError =>
      new UsageError(`${program} for ${server}: ${why}`, {
        exitCode: 1,
        cause,
        hint: `install it, or take it out of ${this.#path}`,
      });
    if (!/^[A-Za-z0-9._-]+$/.test(helper)) throw fail('is no name of a helper');
    let end: HelperEnd;
    try {
      end = await this.#run(program, server);
    } catch (error) {
      throw fail(messageOf(error), error);
    }
    if (end.status !== 0) {
      if (/not found/i.test(end.stdout)) return undefined;
      throw fail(`exit status ${end.status}`);
    }
    let answer: Fields;
    try {
      answer = fieldsOf(JSON.parse(end.stdout));
    } catch {
      throw fail('answered no JSON');
    }
    const username = textOf(answer['Username']);
    const secret = textOf(answer['Secret']);
    if (username === '<token>') return { identityToken: secret };
    return username === '' ? undefined : { username, password: secret };
  }
}
