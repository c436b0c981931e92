// URLs for messages and logs: user info and everything that signs or authorises is blanked.

const SECRET = /sig|token|secret|password|credential|key|auth|expires|policy/i;

/** A URL without user info; values of parameters that look like signatures are replaced by `…`. */
export function redactUrl(url: string | URL): string {
  const parsed = typeof url === 'string' ? URL.parse(url) : new URL(url);
  if (parsed === null) return '(no URL)';
  parsed.username = '';
  parsed.password = '';
  parsed.hash = '';
  const query = [...parsed.searchParams].map(([name, value]) => {
    const shown = SECRET.test(name) || value.length > 128 ? '…' : value;
    return `${name}=${shown}`;
  });
  parsed.search = '';
  return parsed.href + (query.length === 0 ? '' : `?${query.join('&')}`);
}
