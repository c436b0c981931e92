// Real programs whose files lie in an image: a Node.js HTTP server with packages of this repository, Python with numpy and clang from
// Debian packages. Each runs to its first useful output.
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repoRoot } from '../../test/support/golden.ts';
import { timed, type BenchContext } from '../support/context.ts';

/** A program in a tree. */
export interface Workload {
  name: string;
  tree: string;
  /** run it from where the tree is mounted, until its first useful output */
  run: (root: string) => Promise<void>;
}

const SERVER = `
const http = require('node:http');
const loaded = ['undici', 'smol-toml', 'prettier', 'string-width', 'cli-progress', 'koffi', 'esbuild'];
Promise.all(loaded.map((name) => import(name))).then((all) => {
  const server = http.createServer((request, response) => response.end(String(all.length)));
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));
});
`;

/** Make a tree once: built beside its place, then renamed. */
async function once(
  context: BenchContext,
  name: string,
  make: (draft: string) => Promise<void>,
): Promise<string> {
  const tree = join(context.dir, 'trees', name);
  if (existsSync(tree)) return tree;
  const draft = `${tree}.draft`;
  rmSync(draft, { recursive: true, force: true });
  mkdirSync(draft, { recursive: true });
  await make(draft);
  renameSync(draft, tree);
  return tree;
}

/** First HTTP answer of a Node.js server. */
export async function nodeServer(context: BenchContext): Promise<Workload> {
  const tree = await once(context, 'node-server', async (draft) => {
    mkdirSync(join(draft, 'bin'));
    cpSync(process.execPath, join(draft, 'bin/node'), { dereference: true });
    const packages = join(repoRoot, 'node_modules');
    for (const name of readdirSync(packages).filter(
      (entry) => !entry.startsWith('.') && !entry.startsWith('node'),
    ))
      cpSync(join(packages, name), join(draft, 'app/node_modules', name), { recursive: true });
    writeFileSync(join(draft, 'app/server.cjs'), SERVER);
  });
  return {
    name: 'node, first HTTP 200',
    tree,
    run: (root) => firstAnswer(join(root, 'bin/node'), join(root, 'app/server.cjs')),
  };
}

async function firstAnswer(node: string, script: string): Promise<void> {
  const child = spawn(node, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<never>((_, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => reject(new Error(`${script} ended with ${signal ?? code}`)));
  });
  ended.catch(() => {});
  const port = new Promise<string>(
    (resolve) => void child.stdout.once('data', (data: Buffer) => resolve(data.toString().trim())),
  );
  try {
    const answer = await fetch(`http://127.0.0.1:${await Promise.race([port, ended])}/`);
    if ((await answer.text()) !== '7') throw new Error('the server has not loaded its packages');
  } finally {
    child.kill('SIGKILL');
  }
}

const PYTHON =
  'python3.11-minimal python3.11 libpython3.11-minimal libpython3.11-stdlib python3-numpy libblas3 liblapack3 libgfortran5 libquadmath0 libexpat1 zlib1g libffi8 libssl3 libbz2-1.0 liblzma5'.split(
    ' ',
  );

/** `import numpy` and a product, with Debian's Python; undefined where its packages cannot be had. */
export async function pythonNumpy(context: BenchContext): Promise<Workload | undefined> {
  try {
    const tree = await once(context, 'python-numpy', async (draft) => {
      await unpackDebs(draft, PYTHON);
      // as on an installed system: modules are compiled
      const libraries = join(draft, 'usr/lib');
      spawnSync('chroot', [draft, '/usr/bin/python3.11', '-m', 'compileall', '-q', '/usr/lib/python3.11'], {
        stdio: 'ignore',
      });
      await python(draft, `import compileall; compileall.compile_dir(${JSON.stringify(libraries)}, quiet=2)`);
    });
    const script = 'import numpy as np; a = np.ones((64, 64)); assert (a @ a).sum() == 64 ** 3';
    return { name: 'python + numpy', tree, run: (root) => python(root, script) };
  } catch (error) {
    context.note(`no python + numpy: ${String(error)}`);
    return undefined;
  }
}

const CLANG =
  'clang-14 libclang-cpp14 libllvm14 libclang-common-14-dev llvm-14-linker-tools binutils binutils-common binutils-x86-64-linux-gnu libbinutils libctf0 libctf-nobfd0 libgprofng0 libgcc-12-dev libc6-dev linux-libc-dev libedit2 libz3-4 libbsd0 libmd0 libxml2 libicu72 zlib1g libtinfo6 libjansson4 libgcc-s1 libstdc++6 libgomp1 libc6 libgmp10'.split(
    ' ',
  );
const HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n';

/** Compile and link a program, with Debian's clang; undefined where its packages cannot be had. */
export async function clangHello(context: BenchContext): Promise<Workload | undefined> {
  try {
    const tree = await once(context, 'clang', (draft) => unpackDebs(draft, CLANG));
    return { name: 'clang, hello world', tree, run: (root) => compileHello(root, context.dir) };
  } catch (error) {
    context.note(`no clang: ${String(error)}`);
    return undefined;
  }
}

async function compileHello(root: string, dir: string): Promise<void> {
  const [source, output] = [join(dir, 'work', 'hello.c'), join(dir, 'work', 'hello')];
  writeFileSync(source, HELLO);
  const libraries = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu', 'usr/lib/llvm-14/lib'];
  const path = libraries.map((lib) => join(root, lib)).join(':');
  const clang = join(root, 'usr/lib/llvm-14/bin/clang');
  await timed([
    'env',
    `LD_LIBRARY_PATH=${path}`,
    clang,
    `--sysroot=${root}`,
    `-B${root}/usr/bin`,
    '-o',
    output,
    source,
  ]);
  const { stdout } = await timed([output]);
  if (stdout !== 'hello\n') throw new Error(`the program printed ${JSON.stringify(stdout)}`);
}

async function unpackDebs(draft: string, packages: readonly string[]): Promise<void> {
  const debs = `${draft}.debs`;
  rmSync(debs, { recursive: true, force: true });
  mkdirSync(debs);
  await timed(['apt-get', 'download', '-qq', ...packages], { cwd: debs });
  for (const deb of readdirSync(debs)) await timed(['dpkg', '-x', join(debs, deb), draft]);
  rmSync(debs, { recursive: true });
}

async function python(root: string, script: string): Promise<void> {
  const lib = join(root, 'usr/lib/x86_64-linux-gnu');
  const path = [lib, join(lib, 'blas'), join(lib, 'lapack')].join(':');
  const environment = [
    `PYTHONHOME=${join(root, 'usr')}`,
    `PYTHONPATH=${join(root, 'usr/lib/python3/dist-packages')}`,
  ];
  const command = ['env', ...environment, `LD_LIBRARY_PATH=${path}`, 'PYTHONDONTWRITEBYTECODE=1'];
  await timed([...command, join(root, 'usr/bin/python3.11'), '-S', '-c', script]);
}
