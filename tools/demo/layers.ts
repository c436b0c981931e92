// The layers of the demo image, made from what this machine has: the Node runtime with its libraries, the project's
// dependencies, and an update that deletes and replaces files with OCI whiteouts.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Workshop } from './workshop.ts';

/** One layer: a name for people and the tar that holds it. */
export interface Layer {
  name: string;
  tar: string;
}

/** Files of the image that the demo starts from outside. */
export interface ImageLayout {
  /** the image's own dynamic loader, inside the image */
  loader: string;
  libraries: string;
  node: string;
  script: string;
}

/** Where things are in the image. */
export const layout: ImageLayout = {
  loader: 'lib/ld.so',
  libraries: 'lib',
  node: 'usr/bin/node',
  script: 'app/main.mjs',
};

/** Shared libraries of a program and its loader, as absolute paths. Source: ldd(1). */
function librariesOf(program: string): { loader: string; libraries: string[] } {
  const text = execFileSync('ldd', [program], { encoding: 'utf8' });
  const libraries = [...text.matchAll(/=> (\/\S+)/g)].map((match) => match[1] ?? '');
  const loader = /^\s*(\/\S*ld-\S+)/m.exec(text)?.[1];
  if (loader === undefined) throw new Error(`ldd shows no loader for ${program}: is it linked statically?`);
  return { loader, libraries };
}

function put(root: string, path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

function copy(root: string, path: string, from: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  cpSync(from, join(root, path), { recursive: true, dereference: false, verbatimSymlinks: true });
}

/** The program in the image: says who it is, uses its dependencies, checks what the layers did to each other. */
const program = (version: string): string => `import { existsSync, readFileSync, readdirSync } from 'node:fs';
console.log('node', process.version, 'says hello from ${version}');
import { createRequire } from 'node:module';
const here = new URL('.', import.meta.url);
const read = (name) => readFileSync(new URL(name, here), 'utf8').trim();
const prettier = createRequire(import.meta.url)('prettier');
const toml = await import('smol-toml');
console.log('formatted:', (await prettier.format('let  a=1 ;', { parser: 'babel' })).trim());
console.log('settings: ', JSON.stringify(toml.parse(read('settings.toml'))));
console.log('motd:     ', read('../etc/motd'));
console.log('deleted:  ', existsSync(new URL('old-notes.txt', here)) || existsSync(new URL('node_modules/esbuild', here)) ? 'NO' : 'yes');
console.log('data:     ', readdirSync(new URL('data', here)).join(', '));
`;

async function pack(shop: Workshop, root: string, tar: string): Promise<void> {
  const flags = [
    '--format=pax',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--sort=name',
    '--mtime=@1700000000',
  ];
  await shop.run('tar', ['-C', root, ...flags, '-cf', tar, '.']);
  rmSync(root, { recursive: true });
}

/**
 * Write the three layer tars.
 *
 * @param repo checkout whose `node_modules` become the application layer
 * @param shop where the tars are written
 * @param runtime Node binary that becomes the runtime layer
 */
export async function makeLayers(repo: string, shop: Workshop, runtime: string): Promise<Layer[]> {
  const stage = shop.path('stage');
  const finish = async (name: string, at: number): Promise<Layer> => {
    const tar = shop.path(`layer${at}.tar`);
    await pack(shop, stage, tar);
    return { name, tar };
  };

  const { loader, libraries } = librariesOf(runtime);
  copy(stage, layout.node, realpathSync(runtime));
  copy(stage, layout.loader, realpathSync(loader));
  for (const library of libraries)
    copy(stage, join(layout.libraries, basename(library)), realpathSync(library));
  put(stage, 'etc/motd', 'first edition');
  const layers = [await finish('runtime: Node and its libraries', 1)];

  const modules = join(repo, 'node_modules');
  for (const name of readdirSync(modules)) {
    if (name.startsWith('.') || name.startsWith('node-')) continue;
    copy(stage, join('app/node_modules', name), join(modules, name));
  }
  put(stage, layout.script, program('the application layer'));
  put(stage, 'app/settings.toml', 'answer = 42\n');
  put(stage, 'app/old-notes.txt', 'to be deleted by the next layer\n');
  for (const at of [1, 2, 3]) put(stage, `app/data/old-${at}.txt`, `hidden by the next layer ${at}\n`);
  layers.push(await finish('application: node_modules', 2));

  put(stage, layout.script, program('the update layer'));
  put(stage, 'etc/motd', 'second edition');
  put(stage, 'app/.wh.old-notes.txt', '');
  if (existsSync(join(modules, 'esbuild'))) put(stage, 'app/node_modules/.wh.esbuild', '');
  put(stage, 'app/data/.wh..wh..opq', '');
  put(stage, 'app/data/new.txt', 'the only one left\n');
  layers.push(await finish('update: deletes, replaces', 3));
  return layers;
}
