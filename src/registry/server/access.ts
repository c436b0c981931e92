// Who may use the embedded registry: anybody, users with a password, or holders of tokens that it hands out itself.
// Source: distribution spec "token"; RFC 7617.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/** `users` maps names to passwords; without it a token server serves everybody. */
export type AccessRule =
  | { kind: 'open' }
  | { kind: 'basic'; users: Readonly<Record<string, string>> }
  | { kind: 'token'; users?: Readonly<Record<string, string>>; ttlSeconds: number };

interface Grant {
  expiresAt: number;
  scopes: readonly string[];
}

const REALM = 'nydus-ts registry';
/** Tokens that are kept; the oldest go first. */
const MAX_TOKENS = 10_000;

function same(left: string, right: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(left), digest(right));
}

/** Judges Authorization headers. */
export class AccessControl {
  readonly #rule: AccessRule;
  readonly #clock: () => number;
  readonly #grants = new Map<string, Grant>();

  constructor(rule: AccessRule, clock: () => number = Date.now) {
    this.#rule = rule;
    this.#clock = clock;
  }

  #knowsUser(authorization: string, users: Readonly<Record<string, string>>): boolean {
    const pair = /^basic\s+(\S+)$/i.exec(authorization)?.[1];
    if (pair === undefined) return false;
    const text = Buffer.from(pair, 'base64').toString();
    const colon = text.indexOf(':');
    const expected = Object.hasOwn(users, text.slice(0, colon)) ? users[text.slice(0, colon)] : undefined;
    return colon >= 0 && expected !== undefined && same(text.slice(colon + 1), expected);
  }

  /**
   * Challenge to answer with, or undefined when the request may go on.
   *
   * @param scope  `repository:<name>:<actions>` that it needs, '' for none
   * @param origin of this registry, for the realm
   */
  challenge(authorization: string, scope: string, origin: string): string | undefined {
    const rule = this.#rule;
    if (rule.kind === 'open') return undefined;
    if (rule.kind === 'basic') {
      return this.#knowsUser(authorization, rule.users) ? undefined : `Basic realm="${REALM}"`;
    }
    const token = /^bearer\s+(\S+)$/i.exec(authorization)?.[1] ?? '';
    const grant = this.#grants.get(token);
    if (grant !== undefined && grant.expiresAt > this.#clock() && this.#covers(grant.scopes, scope))
      return undefined;
    const wanted = scope === '' ? '' : `,scope="${scope}"`;
    return `Bearer realm="${origin}/token",service="nydus-ts"${wanted}`;
  }

  #covers(scopes: readonly string[], scope: string): boolean {
    if (scope === '') return true;
    const [, name = '', actions = ''] = scope.split(':');
    const granted = scopes.map((one) => one.split(':')).filter(([, other]) => other === name);
    return actions
      .split(',')
      .every((action) => granted.some(([, , given = '']) => given.split(',').includes(action)));
  }

  /** Answer of the token server, or undefined when it refuses. */
  issue(authorization: string, scopes: readonly string[]): { token: string; expires_in: number } | undefined {
    const rule = this.#rule;
    if (rule.kind !== 'token') return undefined;
    if (rule.users !== undefined && !this.#knowsUser(authorization, rule.users)) return undefined;
    const token = randomBytes(24).toString('base64url');
    const oldest = this.#grants.size >= MAX_TOKENS ? this.#grants.keys().next().value : undefined;
    if (oldest !== undefined) this.#grants.delete(oldest);
    this.#grants.set(token, { expiresAt: this.#clock() + rule.ttlSeconds * 1000, scopes });
    return { token, expires_in: rule.ttlSeconds };
  }

  /** Forget every token: what a registry that was started anew does. */
  revokeAll(): void {
    this.#grants.clear();
  }
}
