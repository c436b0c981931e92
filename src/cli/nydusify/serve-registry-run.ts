// `nydusify serve-registry`: reads its flags, serves until it is told to stop.
import { readFileSync, statSync } from 'node:fs';
import { messageOf, UsageError } from '../../base/errors.ts';
import { RegistryServer, type RegistryServerOptions } from '../../registry/server/server.ts';
import type { NydusifyContext } from './context.ts';

/** Bytes of a users file. */
const MAX_USERS_FILE = 1024 * 1024;

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

/** `HOST:PORT`, `[::1]:PORT` or `:PORT`. @throws UsageError */
export function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535)
    throw wrong(`--listen ${JSON.stringify(text)} is no address`, 'write HOST:PORT, such as 127.0.0.1:5000');
  const host = match[1] ?? match[2] ?? '';
  return { host: host === '' ? '0.0.0.0' : host, port };
}

/** Users of a file with one `name:password` a line; empty lines and lines with # are left out. @throws UsageError */
export function readUsers(path: string): Record<string, string> {
  const { mode, size } = statSync(path);
  if ((mode & 0o077) !== 0)
    throw wrong(
      `others can read the passwords in ${path} (mode ${(mode & 0o777).toString(8)})`,
      `chmod 600 ${path}`,
    );
  if (size > MAX_USERS_FILE) throw wrong(`${path} has ${size} bytes, limit ${MAX_USERS_FILE}`);
  const users: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [at, line] of readFileSync(path, 'utf8').split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const colon = line.indexOf(':');
    if (colon <= 0) throw wrong(`${path}, line ${at + 1} is not name:password`);
    users[line.slice(0, colon)] = line.slice(colon + 1).replace(/\r$/, '');
  }
  if (Object.keys(users).length === 0) throw wrong(`${path} names no user`);
  return users;
}

function optionsOf(ctx: NydusifyContext): RegistryServerOptions {
  const { values } = ctx;
  const file = (name: string): string | undefined => {
    const path = values.text(name);
    if (path === undefined || path === '') return undefined;
    if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true)
      throw wrong(`--${name}: no file ${path}`);
    return path;
  };
  const [users, certFile, keyFile] = [file('users-file'), file('tls-cert'), file('tls-key')];
  if ((certFile === undefined) !== (keyFile === undefined))
    throw wrong('--tls-cert and --tls-key belong together');
  return {
    dir: values.text('dir') ?? '',
    ...parseListen(values.text('listen') ?? ''),
    logger: ctx.log,
    ...(certFile === undefined || keyFile === undefined ? {} : { tls: { certFile, keyFile } }),
    ...(users === undefined ? {} : { access: { kind: 'basic', users: readUsers(users) } }),
  };
}

/** @returns exit status */
export async function runServeRegistry(ctx: NydusifyContext): Promise<number> {
  const options = optionsOf(ctx);
  let server: RegistryServer;
  try {
    server = await RegistryServer.start(options);
  } catch (error) {
    throw wrong(
      `cannot serve ${options.dir} on ${ctx.values.text('listen')}: ${messageOf(error)}`,
      (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
        ? 'choose another port with --listen'
        : undefined,
    );
  }
  await using _ = server;
  ctx.stdout.write(`${server.origin}\n`);
  ctx.log.info(`registry ${server.host} serves ${options.dir}; stop it with Ctrl-C`);
  if (options.access === undefined && !/^(127\.|localhost|::1)/.test(options.host ?? ''))
    ctx.log.warn('everybody who reaches this address can push: --users-file lets in only some');
  await new Promise<void>((resolve) => {
    if (ctx.signal.aborted) resolve();
    ctx.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  ctx.log.info('stopped');
  return 0;
}
