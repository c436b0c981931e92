// Builds bin/: one launcher per program, and bin/lib/ with the bundled code. `node tools/bundle.ts [--out DIR]`.
// Entries are src/bin/*.ts and every worker; chunks are shared, so that a program loads only what a run needs.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type BuildOptions, type Plugin } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');

/** Packages with native code: they are loaded from node_modules at run time. */
export const NATIVE = ['koffi', 'lz4-napi', '@napi-rs/blake-hash', '@node-rs/crc32'];

/** Packages written as CommonJS ask for `require`, which an ES module has not. */
const BANNER =
  "import { createRequire as __createRequire } from 'node:module';\nconst require = __createRequire(import.meta.url);";

/** All TypeScript files below a folder, without tests. */
function sources(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile() && e.name.endsWith('.ts') && !e.name.endsWith('.test.ts'))
    .map((e) => join(e.parentPath, e.name));
}

/** Name of the bundled file of a worker: its own, or with its folder before it when it is just called `worker`. */
export function workerName(path: string): string {
  const name = basename(path, '.ts');
  return name === 'worker' ? `${basename(dirname(path))}-worker` : name;
}

/** Entry files by the name of their bundle. */
export function entryPoints(src: string): Map<string, string> {
  const entries = new Map<string, string>();
  for (const path of sources(src).sort()) {
    const isProgram = dirname(path) === join(src, 'bin');
    const isWorker = /(^|-)worker\.ts$/.test(basename(path));
    if (!isProgram && !isWorker) continue;
    const name = isProgram ? `${basename(path, '.ts')}-main` : workerName(path);
    const other = entries.get(name);
    if (other !== undefined) throw new Error(`${path} and ${other} would both become ${name}.js`);
    entries.set(name, path);
  }
  return entries;
}

/** Workers are found beside the bundle: `new URL('./fuse/worker.ts', import.meta.url)` becomes `./fuse-worker.js`. */
const workerUrls: Plugin = {
  name: 'worker-urls',
  setup(api) {
    api.onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path }) => {
      const text = readFileSync(path, 'utf8');
      const contents = text.replace(
        /new URL\((['"])([^'"]+\.ts)\1, import\.meta\.url\)/g,
        (_, quote: string, to: string) =>
          `new URL(${quote}./${workerName(resolve(dirname(path), to))}.js${quote}, import.meta.url)`,
      );
      return { contents, loader: 'ts' };
    });
  },
};

/** undici is most of the bytes of the programs that speak HTTP, and most runs never need it: a file of its own for all of them. */
const undiciFile: Plugin = {
  name: 'undici-file',
  setup(api) {
    api.onResolve({ filter: /^undici$/ }, ({ kind }) =>
      kind === 'dynamic-import' ? { path: './undici.js', external: true } : undefined,
    );
  },
};

function gitCommit(): string {
  try {
    return execFileSync('git', ['-C', root, 'rev-parse', 'HEAD'], { encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch {
    return process.env['GIT_COMMIT'] ?? 'unknown'; // a source archive has no history
  }
}

/** Time of the build; SOURCE_DATE_EPOCH (reproducible-builds.org) fixes it. */
function buildTime(): string {
  const epoch = process.env['SOURCE_DATE_EPOCH'];
  return (epoch === undefined ? new Date() : new Date(Number(epoch) * 1000)).toISOString();
}

/** The file a launcher runs: turns the compile cache on, then loads the program. */
function startFile(program: string): string {
  return readFileSync(join(root, 'tools/start.js'), 'utf8').replaceAll('PROGRAM', program);
}

/** Build everything into `out`, which appears complete or not at all. */
export async function bundle(out: string): Promise<void> {
  const draft = `${out}.new-${process.pid}`;
  try {
    await bundleInto(draft);
    rmSync(out, { recursive: true, force: true });
    renameSync(draft, out);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

async function bundleInto(draft: string): Promise<void> {
  const lib = join(draft, 'lib');
  mkdirSync(lib, { recursive: true });
  const pkg = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const entries = entryPoints(join(root, 'src'));
  const programs = [...entries].filter(([, path]) => dirname(path) === join(root, 'src/bin'));
  const workers = [...entries].filter(([, path]) => dirname(path) !== join(root, 'src/bin'));
  const options: BuildOptions = {
    absWorkingDir: root,
    outdir: lib,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    external: NATIVE,
    banner: { js: BANNER },
    legalComments: 'none',
    logLevel: 'warning',
    define: {
      __PACKAGE_VERSION__: JSON.stringify(pkg.version),
      __GIT_COMMIT__: JSON.stringify(gitCommit()),
      __BUILD_TIME__: JSON.stringify(buildTime()),
    },
  };
  const plugins = [workerUrls, undiciFile];
  // A program at a time, and workers in one file each: in pieces that all programs share, the daemon would start from 80 files
  // with 195 ms of processor time, not 165, a worker with 69, not 51 (measured).
  for (const program of programs) {
    await build({ ...options, plugins, entryPoints: Object.fromEntries([program]), splitting: true });
  }
  await build({ ...options, plugins, entryPoints: Object.fromEntries(workers) });
  await build({ ...options, entryPoints: { undici: 'undici' } });
  const launcher = readFileSync(join(root, 'tools/launcher.sh'), 'utf8');
  for (const [name] of programs) {
    const program = name.slice(0, -'-main'.length);
    writeFileSync(join(lib, `${program}.js`), startFile(program));
    writeFileSync(join(draft, program), launcher.replaceAll('PROGRAM', program));
    chmodSync(join(draft, program), 0o755);
  }
  writeFileSync(join(lib, 'package.json'), '{ "type": "module" }\n');
}

if (import.meta.main) {
  const at = process.argv.indexOf('--out');
  const out = resolve(at < 0 ? join(root, 'bin') : (process.argv[at + 1] ?? ''));
  await bundle(out);
  console.log(`bundled into ${relative(process.cwd(), out) || '.'}`);
}
