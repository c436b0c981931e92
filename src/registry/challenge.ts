// `WWW-Authenticate` of registries: which scheme, and where tokens come from. Source: RFC 9110 section 11.6.1,
// distribution spec "token". The header is written by foreign servers: nothing here throws.

/** One challenge; parameter names are lower case. */
export interface Challenge {
  scheme: 'basic' | 'bearer';
  parameters: ReadonlyMap<string, string>;
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+/;

function quoted(text: string): [value: string, rest: string] {
  let value = '';
  for (let i = 1; i < text.length; i++) {
    if (text[i] === '"') return [value, text.slice(i + 1)];
    if (text[i] === '\\' && i + 1 < text.length) i++;
    value += text[i];
  }
  return [value, ''];
}

function parameterValue(text: string): [value: string, rest: string] {
  if (text.startsWith('"')) return quoted(text);
  const value = /^[^\s,]*/.exec(text)?.[0] ?? '';
  return [value, text.slice(value.length)];
}

/** Every Basic and Bearer challenge of a header, in its order; other schemes are left out. */
export function parseChallenges(header: string): Challenge[] {
  const out: Challenge[] = [];
  let parameters: Map<string, string> | undefined;
  let rest = header;
  for (;;) {
    rest = rest.replace(/^[\s,]+/, '');
    const word = TOKEN.exec(rest)?.[0];
    if (word === undefined) return out;
    rest = rest.slice(word.length);
    const equals = /^\s*=\s*/.exec(rest)?.[0];
    if (equals === undefined) {
      parameters = new Map();
      const scheme = word.toLowerCase();
      if (scheme === 'basic' || scheme === 'bearer') out.push({ scheme, parameters });
      continue;
    }
    const [value, after] = parameterValue(rest.slice(equals.length));
    if (!parameters?.has(word.toLowerCase())) parameters?.set(word.toLowerCase(), value);
    rest = after;
  }
}

/** Where bearer tokens come from. */
export interface TokenSource {
  /** absolute URL */
  realm: string;
  service: string;
  /** '' when the challenge names none */
  scope: string;
}

/** What a 401 asks for: the first bearer challenge that can be used, else basic. */
export function chooseChallenge(header: string): 'basic' | TokenSource | undefined {
  const challenges = parseChallenges(header);
  for (const { scheme, parameters } of challenges) {
    const realm = parameters.get('realm') ?? '';
    if (scheme !== 'bearer' || !/^https?:$/.test(URL.parse(realm)?.protocol ?? '')) continue;
    return { realm, service: parameters.get('service') ?? '', scope: parameters.get('scope') ?? '' };
  }
  return challenges.some(({ scheme }) => scheme === 'basic') ? 'basic' : undefined;
}
