// `make release`: a tarball for machines without Node, under dist/: programs, Node, native packages of this architecture,
// checksums. `--install PREFIX` puts the same files below PREFIX/lib/nydus-ts, with links in PREFIX/bin. `--out DIR`
// replaces dist, `--bin DIR` the folder of bundled programs, `--quick` compresses less.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { arch } from 'node:os';
import { basename, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { NATIVE } from './bundle.ts';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const modules = join(root, 'node_modules');

interface Package {
  version: string;
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

function packageOf(folder: string): Package {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Package;
}

/** Installed packages that the programs load at run time: native ones with what those need, and Node itself. */
function runtimePackages(): string[] {
  const found = new Set<string>();
  const own = packageOf(root);
  const pending = [...NATIVE, ...Object.keys(own.optionalDependencies ?? {})];
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    const folder = join(modules, name);
    // an optional package for another architecture is not installed
    if (found.has(name) || !existsSync(folder)) continue;
    found.add(name);
    const { dependencies = {}, optionalDependencies = {} } = packageOf(folder);
    pending.push(...Object.keys(dependencies), ...Object.keys(optionalDependencies));
  }
  return [...found].sort();
}

/** Copy everything a machine needs into `target`. */
function assemble(bin: string, target: string): void {
  mkdirSync(target, { recursive: true });
  cpSync(bin, join(target, 'bin'), {
    recursive: true,
    filter: (path) => relative(bin, path) !== 'lib/cache',
  });
  for (const name of runtimePackages()) {
    cpSync(join(modules, name), join(target, 'node_modules', name), {
      recursive: true,
      dereference: true,
      filter: (path) => path !== join(modules, name, 'include'), // 68 MB of headers for compilers
    });
  }
  for (const name of ['LICENSE', 'README.md', 'CHANGELOG.md']) {
    if (existsSync(join(root, name))) cpSync(join(root, name), join(target, name));
  }
}

function programs(bin: string): string[] {
  return readdirSync(bin).filter((name) => name !== 'lib');
}

/** Programs that run from an older installation keep their files: folders are swapped, then the old one goes. */
function install(bin: string, prefix: string): void {
  const home = join(prefix, 'lib/nydus-ts');
  const draft = `${home}.new-${process.pid}`;
  const old = `${home}.old-${process.pid}`;
  try {
    assemble(bin, draft);
    if (existsSync(home)) renameSync(home, old);
    renameSync(draft, home);
  } finally {
    rmSync(draft, { recursive: true, force: true });
    rmSync(old, { recursive: true, force: true });
  }
  mkdirSync(join(prefix, 'bin'), { recursive: true });
  for (const name of programs(bin)) {
    rmSync(join(prefix, 'bin', name), { force: true });
    symlinkSync(join('../lib/nydus-ts/bin', name), join(prefix, 'bin', name));
  }
  console.log(`installed ${programs(bin).join(', ')} into ${join(prefix, 'bin')}`);
}

function checksum(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

function release(bin: string, dist: string, level: number): void {
  const name = `nydus-ts-${packageOf(root).version}-linux-${arch()}`;
  const folder = join(dist, name);
  rmSync(folder, { recursive: true, force: true });
  assemble(bin, folder);
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const sums = files.map((path) => `${checksum(path)}  ${relative(folder, path)}\n`).join('');
  writeFileSync(join(folder, 'SHA256SUMS'), sums);
  const tarball = join(dist, `${name}.tar.gz`);
  const flags = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '-I', `gzip -n -${level}`];
  execFileSync('tar', [...flags, '-C', dist, '-cf', tarball, name], { stdio: 'inherit' });
  writeFileSync(`${tarball}.sha256`, `${checksum(tarball)}  ${basename(tarball)}\n`);
  rmSync(folder, { recursive: true, force: true });
  console.log(relative(process.cwd(), tarball));
}

const { values } = parseArgs({
  options: {
    bin: { type: 'string', default: join(root, 'bin') },
    out: { type: 'string', default: join(root, 'dist') },
    install: { type: 'string' },
    quick: { type: 'boolean', default: false },
  },
});
if (values.install === undefined) release(resolve(values.bin), resolve(values.out), values.quick ? 1 : 6);
else install(resolve(values.bin), resolve(values.install));
