// The proxy that the environment names for a URL. Source: Go golang.org/x/net/http/httpproxy, which upstream's programs go by:
// HTTP_PROXY, HTTPS_PROXY and NO_PROXY, or their names in lower case.
import { BlockList, isIP } from 'node:net';

type Environment = Readonly<Record<string, string | undefined>>;

/** Loopback is never asked for through a proxy. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function inNetwork(host: string, network: string): boolean {
  const [address = '', prefix = ''] = network.split('/');
  const [own, other] = [isIP(host), isIP(address)];
  if (own === 0 || own !== other || !/^\d{1,3}$/.test(prefix) || Number(prefix) > (own === 4 ? 32 : 128))
    return false;
  const family = own === 4 ? 'ipv4' : 'ipv6';
  const list = new BlockList();
  list.addSubnet(address, Number(prefix), family);
  return list.check(host, family);
}

/** Does an entry of NO_PROXY mean the host? `*`, a name with all names below it, `.name` for those below alone, address, network; each with a port or without. */
function excludes(entry: string, host: string, port: string): boolean {
  if (entry === '*') return true;
  if (entry.includes('/')) return inNetwork(host, entry);
  const [, name = '', wantedPort = ''] =
    /^(.*?)(?::(\d+))?$/.exec(isIP(entry) === 6 ? `[${entry}]` : entry) ?? [];
  if (wantedPort !== '' && wantedPort !== port) return false;
  const plain = name
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/^\*\./, '.')
    .toLowerCase();
  if (plain === '') return false;
  if (isIP(plain) !== 0) return plain === host;
  return plain.startsWith('.') ? host.endsWith(plain) : host === plain || host.endsWith(`.${plain}`);
}

/** @returns for a URL the URL of its proxy; undefined = it is asked directly */
export function environmentProxy(env: Environment): (url: URL) => string | undefined {
  const value = (name: string): string => env[name] || env[name.toLowerCase()] || '';
  const exceptions = value('NO_PROXY')
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '');
  return (url) => {
    const secure = url.protocol === 'https:';
    const proxy = value(secure ? 'HTTPS_PROXY' : 'HTTP_PROXY');
    if (proxy === '') return undefined;
    const host = url.hostname.replace(/^\[(.*)\]$/, '$1').toLowerCase();
    const port = url.port === '' ? (secure ? '443' : '80') : url.port;
    if (isLoopback(host) || exceptions.some((entry) => excludes(entry, host, port))) return undefined;
    const whole = /^[a-z][a-z0-9+.-]*:\/\//i.test(proxy) ? proxy : `http://${proxy}`;
    return URL.canParse(whole) ? whole : undefined;
  };
}
