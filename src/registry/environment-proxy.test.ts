import assert from 'node:assert/strict';
import { test } from 'node:test';
import { environmentProxy } from './environment-proxy.ts';

const PROXY = 'http://proxy.example:3128';

test('environmentProxy: by scheme, in either case, with or without a scheme of its own', () => {
  const at = (env: Record<string, string>, url: string): string | undefined =>
    environmentProxy(env)(new URL(url));
  assert.equal(at({}, 'https://a.example/'), undefined);
  assert.equal(at({ HTTP_PROXY: PROXY }, 'http://a.example/'), PROXY);
  assert.equal(at({ HTTP_PROXY: PROXY }, 'https://a.example/'), undefined);
  assert.equal(at({ https_proxy: 'proxy.example:3128' }, 'https://a.example/'), PROXY);
  assert.equal(at({ HTTPS_PROXY: PROXY, https_proxy: 'http://other' }, 'https://a.example/'), PROXY);
  for (const host of ['localhost', '127.0.0.1', '127.1.2.3:5000', '[::1]:5000'])
    assert.equal(at({ HTTP_PROXY: PROXY }, `http://${host}/`), undefined, host);
  assert.equal(at({ HTTP_PROXY: 'http://' }, 'http://a.example/'), undefined);
});

const EXCEPTIONS: [string, string[], string[]][] = [
  ['*', ['a.example', '10.0.0.1'], []],
  ['a.example', ['a.example', 'b.a.example', 'A.EXAMPLE'], ['ba.example', 'example']],
  ['.a.example', ['b.a.example'], ['a.example']],
  ['*.a.example', ['b.a.example'], ['a.example']],
  ['a.example:5000', ['a.example:5000'], ['a.example', 'a.example:5001']],
  ['a.example:80', ['a.example'], ['a.example:5000']],
  ['10.1.2.3', ['10.1.2.3', '10.1.2.3:5000'], ['10.1.2.4']],
  ['10.1.0.0/16', ['10.1.2.3'], ['10.2.0.1', 'a.example']],
  ['fd00::/8', ['[fd00::7]:5000'], ['[fe80::1]', '10.1.2.3']],
  ['fd00::7', ['[fd00::7]:5000'], ['[fd00::8]']],
  ['x.example, a.example , ,10.0.0.0/99', ['a.example'], ['10.0.0.1']],
];
for (const [list, direct, proxied] of EXCEPTIONS) {
  test(`environmentProxy: NO_PROXY=${list}`, () => {
    const proxyFor = environmentProxy({ HTTP_PROXY: PROXY, NO_PROXY: list });
    for (const host of direct) assert.equal(proxyFor(new URL(`http://${host}/v2/`)), undefined, host);
    for (const host of proxied) assert.equal(proxyFor(new URL(`http://${host}/v2/`)), PROXY, host);
  });
}
