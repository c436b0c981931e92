// `make release`: a tarball for machines without Node, under dist/: programs, Node, native packages of this architecture,
// checksums. `--install PREFIX` puts the same files below PREFIX/lib/nydus-ts, with links in PREFIX/bin.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { arch } from 'node:os';
import { basename, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

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

/** Installed packages that the programs load at run time: what package.json names, and what those need in turn. */
function runtimePackages(): string[] {
  const found = new Set<string>();
  const own = packageOf(root);
  const pending = [...Object.keys(own.dependencies ?? {}), ...Object.keys(own.optionalDependencies ?? {})];
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
function assemble(target: string): void {
  mkdirSync(target, { recursive: true });
  cpSync(join(root, 'bin'), join(target, 'bin'), {
    recursive: true,
    filter: (path) => relative(root, path) !== 'bin/lib/cache',
  });
  for (const name of runtimePackages()) {
    cpSync(join(modules, name), join(target, 'node_modules', name), { recursive: true, dereference: true });
  }
  for (const name of ['LICENSE', 'README.md', 'CHANGELOG.md']) {
    if (existsSync(join(root, name))) cpSync(join(root, name), join(target, name));
  }
}

function programs(): string[] {
  return readdirSync(join(root, 'bin')).filter((name) => name !== 'lib');
}

function install(prefix: string): void {
  const home = join(prefix, 'lib/nydus-ts');
  rmSync(home, { recursive: true, force: true });
  assemble(home);
  mkdirSync(join(prefix, 'bin'), { recursive: true });
  for (const name of programs()) {
    rmSync(join(prefix, 'bin', name), { force: true });
    symlinkSync(join('../lib/nydus-ts/bin', name), join(prefix, 'bin', name));
  }
  console.log(`installed ${programs().join(', ')} into ${join(prefix, 'bin')}`);
}

function checksum(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

function release(): void {
  const name = `nydus-ts-${packageOf(root).version}-linux-${arch()}`;
  const dist = join(root, 'dist');
  const folder = join(dist, name);
  rmSync(folder, { recursive: true, force: true });
  assemble(folder);
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const sums = files.map((path) => `${checksum(path)}  ${relative(folder, path)}\n`).join('');
  writeFileSync(join(folder, 'SHA256SUMS'), sums);
  const tarball = join(dist, `${name}.tar.gz`);
  const flags = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner'];
  execFileSync('tar', [...flags, '-C', dist, '-czf', tarball, name], { stdio: 'inherit' });
  writeFileSync(`${tarball}.sha256`, `${checksum(tarball)}  ${basename(tarball)}\n`);
  rmSync(folder, { recursive: true, force: true });
  console.log(relative(process.cwd(), tarball));
}

const at = process.argv.indexOf('--install');
if (at < 0) release();
else install(resolve(process.argv[at + 1] ?? '/usr/local'));
