// nydusify through every door of Debian's docker-registry: tokens that end after 2 s, TLS with a private CA, passwords, which
// show nowhere. And with upstream's builder.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  command,
  fatalOf,
  good,
  makeSample,
  nydusify,
  readJson,
  rootOf,
  type Manifest,
} from '../e2e/nydusify-sample.ts';
import {
  AUTH,
  dockerRegistry,
  login,
  makeCertificate,
  PASSWORD,
  passwordAuth,
  tokenServer,
} from '../support/docker-registry.ts';
import { repoRoot } from '../support/golden.ts';
import {
  firstReason,
  requireFuse,
  requirePeer,
  requireRoot,
  RUST_PEER,
  rustBuilderMissing,
} from '../support/prerequisites.ts';
import { tempDir } from '../support/temporary.ts';

const skip = firstReason(
  requireRoot(),
  requireFuse(),
  ...['docker-registry', 'openssl', 'tar'].map(requirePeer),
);
/** Convert into a registry, within it, and compare what is there now with the source. */
async function throughRegistry(
  work: string,
  from: string[],
  host: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const flags = ['--work-dir', join(work, 'tmp'), '--platform', 'linux/amd64'];
  const [image, target] = [`${host}/lib/app:1`, `${host}/lib/app:1-nydus`];
  await good(['copy', ...from, '--target', image, ...flags], env);
  await good(['convert', '--source', image, '--target', target, ...flags], env);
  const checked = await good(['check', '--source', image, '--target', target, ...flags], env);
  assert.match(checked.stderr, /compared 14 entries/);
}

test('nydusify: docker-registry with tokens that end after 2 s', { skip }, async (t) => {
  const sample = makeSample(tempDir(t));
  const { work } = sample;
  const from = ['--source', `file://${sample.layout.dir}`];
  const { keyFile, certFile } = makeCertificate(work);
  const seen: string[] = [];
  const realm = await tokenServer(t, keyFile, certFile, seen);
  const auth = `auth: {token: {realm: "${realm}", service: svc, issuer: test, rootcertbundle: ${certFile}}}`;
  const host = await dockerRegistry(t, work, [auth]);
  await throughRegistry(work, from, host, login(work, host));
  assert.ok(seen.includes('repository:lib/app:pull,push'), seen.join('; '));
  const wrong = Buffer.from('user:mistaken').toString('base64');
  const refused = await nydusify(
    ['copy', ...from, '--target', `${host}/lib/other:1`],
    login(work, host, wrong),
  );
  assert.match(fatalOf(refused), /status 401/);
  assert.ok(!refused.stderr.includes('mistaken') && !refused.stderr.includes(wrong), refused.stderr);
});

for (const name of ['SSL_CERT_FILE', 'SSL_CERT_DIR']) {
  test(`nydusify: a private CA is named by ${name}, as upstream has it`, { skip }, async (t) => {
    const sample = makeSample(tempDir(t));
    const { work } = sample;
    const from = ['--source', `file://${sample.layout.dir}`];
    const { keyFile, certFile } = makeCertificate(work);
    const trusted = join(work, 'trusted');
    mkdirSync(trusted);
    copyFileSync(certFile, join(trusted, 'ca.pem'));
    const host = await dockerRegistry(t, work, [], `, tls: {certificate: ${certFile}, key: ${keyFile}}`);
    await throughRegistry(work, from, host, { [name]: name === 'SSL_CERT_DIR' ? trusted : certFile });
    const untrusted = await nydusify(['copy', ...from, '--target', `${host}/lib/app:1`]);
    assert.match(fatalOf(untrusted), /certificate is not trusted/);
    assert.match(untrusted.stderr, /hint="[^"]*SSL_CERT_FILE/);
  });
}

/** All that a conversion showed or wrote, until it was killed after its first layer. */
async function tracesOf(
  args: string[],
  env: NodeJS.ProcessEnv,
  work: string,
): Promise<Record<string, string>> {
  const [file = '', ...first] = command();
  const child = spawn(file, [...first, '-D', 'convert', ...args, '--progress', 'json'], {
    env: { PATH: process.env['PATH'], ...env },
  });
  const seen = { stdout: '', stderr: '', ps: '' };
  child.stdout.on('data', (piece: Buffer) => {
    seen.stdout += piece.toString();
    if (child.killed || !seen.stdout.includes('"state":"done"')) return;
    seen.ps = readFileSync(`/proc/${child.pid}/cmdline`, 'latin1');
    child.kill('SIGKILL');
  });
  child.stderr.on('data', (piece: Buffer) => (seen.stderr += piece.toString()));
  const status = await new Promise((resolve) => child.on('close', (code, signal) => resolve(signal ?? code)));
  assert.equal(status, 'SIGKILL', seen.stderr);
  const traces: Record<string, string> = { ...seen };
  for (const entry of readdirSync(work, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const mode = statSync(path).mode;
    if (!entry.isFile()) continue;
    traces[path] = readFileSync(path, 'latin1');
    if (/state\.jsonl$|\/owner$|\/layers\//.test(path)) assert.equal(mode & 0o777, 0o600, path);
  }
  return traces;
}

test(
  'nydusify convert: credentials show neither in ps, logs and errors nor in state files',
  { skip },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const { work } = sample;
    const host = await dockerRegistry(t, work, [passwordAuth(work)]);
    const env = login(work, host);
    const image = `${host}/lib/app:1`;
    await good(['copy', '--source', `file://${sample.layout.dir}`, '--target', image], env);
    // the builder sees its own arguments and environment as ps shows them
    const own = join(repoRoot, 'src/bin/nydus-image.ts');
    const builder = join(work, 'builder');
    const seen = join(work, 'seen');
    writeFileSync(
      builder,
      `#!/bin/sh\necho "$@" >> ${seen}\nenv >> ${seen}\nexec ${process.execPath} ${own} "$@"\n`,
      {
        mode: 0o755,
      },
    );
    const tmp = join(work, 'tmp');
    mkdirSync(tmp);
    const flags = [
      '--source',
      image,
      '--target',
      `${image}-nydus`,
      '--platform',
      'linux/amd64',
      '--work-dir',
      tmp,
    ];
    const traces = await tracesOf(flags, env, tmp);
    const outside = ['convert', ...flags, '--target', `${host}/lib/other:1`, '--nydus-image', builder];
    const whole = await good(['-D', ...outside, '--output-json', join(work, 'metrics')], env);
    Object.assign(traces, { log: whole.stderr, metrics: readFileSync(join(work, 'metrics'), 'utf8') });
    traces['builder'] = readFileSync(seen, 'utf8');
    const refused = await nydusify(
      ['-D', ...outside],
      login(work, host, Buffer.from('user:pa:ss!').toString('base64')),
    );
    assert.match(fatalOf(refused), /status 401/);
    traces['error'] = refused.stderr;
    assert.match(traces['builder'], /^create .*--type tar-rafs/m);
    assert.match(traces['ps'] ?? '', /convert\0--source/);
    assert.ok(Object.keys(traces).some((path) => path.endsWith('state.jsonl')));
    for (const folder of readdirSync(tmp)) assert.equal(statSync(join(tmp, folder)).mode & 0o777, 0o700);
    for (const [where, text] of Object.entries(traces))
      for (const secret of [PASSWORD, AUTH, AUTH.replace(/=+$/, '')])
        assert.ok(!text.includes(secret), `${where} shows the password`);
  },
);

test(
  'nydusify convert: with the Rust builder, the image is as good',
  { skip: firstReason(skip, rustBuilderMissing()) },
  async (t) => {
    const { work, args, layout } = makeSample(tempDir(t));
    const program = join(RUST_PEER, 'nydus-image');
    const target = join(work, 'target/');
    for (const version of ['5', '6']) {
      await good(['convert', ...args(target, ['--nydus-image', program, '--fs-version', version])], {});
      const manifest = readJson<Manifest>(target, rootOf(target));
      assert.equal(manifest.layers.length, 4);
      const source = ['--source', 'example.org/app:1.0', '--source-archive', layout.dir];
      const made = ['--target', 'example.org/app:1.0-nydus', '--target-archive', target];
      const flags = ['--platform', 'linux/amd64', '--work-dir', join(work, 'output')];
      const checked = await good(['check', ...source, ...made, ...flags], {});
      assert.match(checked.stderr, /compared 14 entries/);
    }
  },
);
