// `nydusify build`: calls the builder, names its blob, pushes. Source: nydus-image-and-nydusify.md 9.6.
import { execFile } from 'node:child_process';
import { copyFile, mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { Writable } from 'node:stream';
import { messageOf, UsageError } from '../../base/errors.ts';
import { blobIdsOf } from '../../convert/copy/from-backend.ts';
import { temporaryName } from '../../build/temporary-file.ts';
import { nydusImage } from '../nydus-image/program.ts';
import { runProgram } from '../run.ts';
import { readBackend, type BackendChoice } from './backend-flags.ts';
import { buildFlags } from './build.ts';
import type { NydusifyContext } from './context.ts';
import type { Flag } from './flags.ts';

/** Times that a failed upload is tried again, and the first wait; as `convert` has them. */
const PUSH_RETRIES = 3;
const PUSH_RETRY_MS = 5000;

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

interface Plan {
  source: string;
  output: string;
  meta: string;
  blob: string;
  parent: string | undefined;
  /** bootstrap of the chunk dictionary */
  dictionary: string | undefined;
  push: BackendChoice | undefined;
}

function pushOf(ctx: NydusifyContext): BackendChoice | undefined {
  if (!ctx.values.on('backend-push')) return undefined;
  const choice = readBackend(ctx.values, '');
  if (choice === undefined) throw wrong('--backend-push needs --backend-type');
  if (choice.type === 'localfs' && typeof choice.config['dir'] !== 'string')
    throw wrong('--backend-config has no dir');
  return choice;
}

function planOf(ctx: NydusifyContext): Plan {
  const { values } = ctx;
  const given = (name: string): string | undefined => {
    const text = values.text(name);
    return text === '' ? undefined : text;
  };
  for (const [name, flag] of Object.entries(buildFlags as Readonly<Record<string, Flag>>)) {
    const used = flag.type === 'flag' ? values.on(name) : given(name) !== undefined && values.isSet(name);
    if (flag.refused !== undefined && used) throw wrong(`--${name} is not supported yet`, flag.refused);
  }
  const name = given('name') ?? '';
  if (name !== basename(name) || name === '' || name === '.' || name === '..')
    throw wrong(`--name ${JSON.stringify(name)} is no file name`);
  const version = values.text('fs-version');
  if (version !== '5' && version !== '6') throw wrong('--fs-version should be one of [5 6]');
  const dictionary = given('chunk-dict');
  if (dictionary !== undefined && !/^bootstrap=./.test(dictionary))
    throw wrong(`--chunk-dict ${JSON.stringify(dictionary)} is not bootstrap=FILE`);
  const output = values.text('output-dir') ?? '.';
  return {
    source: values.text('source-dir') ?? '',
    output,
    meta: join(output, extname(name) === '' ? `${name}.meta` : name),
    blob: join(output, `${name}.blob`),
    parent: given('parent-bootstrap'),
    dictionary: dictionary?.slice('bootstrap='.length),
    push: pushOf(ctx),
  };
}

/** Run the builder, ours in this process or another one. @throws Error with what it reported */
async function runBuilder(ctx: NydusifyContext, args: readonly string[]): Promise<void> {
  const program = ctx.values.text('nydus-image') ?? '';
  if (program !== '' && program !== 'nydus-image') {
    await new Promise<void>((done, fail) => {
      const child = execFile(
        program,
        args,
        { signal: ctx.signal, maxBuffer: 1 << 24 },
        (error, _, stderr) => {
          if (error === null) done();
          else fail(new Error(`${program} ${args[0]}: ${stderr.trim() || error.message}`));
        },
      );
      child.stdin?.end();
    });
    return;
  }
  let said = '';
  const stderr = new Writable({
    write: (chunk: Buffer, _, done) => {
      said = (said + chunk.toString()).slice(-8000);
      done();
    },
  });
  const io = { stdin: process.stdin, stdout: stderr, stderr, env: ctx.env, signal: ctx.signal };
  const status = await runProgram(nydusImage, args, io);
  ctx.signal.throwIfAborted();
  if (status !== 0) throw new Error(`build failed: ${said.trim()}`);
}

async function blobsOf(json: string): Promise<string[]> {
  const { blobs } = JSON.parse(await readFile(json, 'utf8')) as { blobs?: unknown };
  return Array.isArray(blobs) ? blobs.map(String) : [];
}

/** Ids of the blobs that a parent or dictionary has already. */
function knownBlobs(plan: Plan): Set<string> {
  const known = new Set<string>();
  for (const path of [plan.parent, plan.dictionary]) {
    if (path === undefined) continue;
    try {
      for (const id of blobIdsOf(path)) known.add(id);
    } catch (error) {
      throw new UsageError(`cannot read ${path}: ${messageOf(error)}`, { exitCode: 1, cause: error });
    }
  }
  return known;
}

/** Copy a file under its final name as the last step. */
async function place(from: string, to: string): Promise<void> {
  const draft = temporaryName(to);
  try {
    await copyFile(from, draft);
    await rename(draft, to);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}

/** Copy into a directory. */
async function pushLocal(dir: string, files: readonly Pushed[]): Promise<void> {
  await mkdir(dir, { recursive: true });
  for (const { prefix, file } of files) await place(file, join(dir, `${prefix}${basename(file)}`));
}

/** Upload to an object store: one prefix for blobs, one for bootstraps, which are its `object_prefix` in turn. */
async function pushObjects(
  ctx: NydusifyContext,
  choice: BackendChoice,
  files: readonly Pushed[],
): Promise<void> {
  const { objectStore } = await import('../../convert/backend/object-store.ts');
  const { environmentProxy } = await import('../../registry/environment-proxy.ts');
  const { blob_prefix: _, meta_prefix: __, ...section } = choice.config;
  for (const { prefix, file } of files) {
    const store = objectStore({
      type: choice.type === 's3' ? 's3' : 'oss',
      config: { ...section, ...(prefix === '' ? {} : { object_prefix: prefix }) },
      retries: PUSH_RETRIES,
      retryDelayMs: PUSH_RETRY_MS,
      proxyFor: environmentProxy(ctx.env),
      logger: ctx.log,
    });
    try {
      const { size } = await stat(file);
      await store.put(basename(file), file, size, ctx.signal);
    } finally {
      await store.close();
    }
  }
}

/** A file and what stands before its name in the backend. */
interface Pushed {
  prefix: string;
  file: string;
}

async function push(
  ctx: NydusifyContext,
  choice: BackendChoice,
  plan: Plan,
  blob: string | undefined,
): Promise<void> {
  const text = (key: string): string => {
    const value = choice.config[key] ?? '';
    if (typeof value === 'string' && !value.includes('\0')) return value;
    throw wrong(`--backend-config: ${key} is no text`);
  };
  // the bootstrap last: who finds it finds its blob
  const files: Pushed[] = [
    ...(blob === undefined ? [] : [{ prefix: text('blob_prefix'), file: blob }]),
    { prefix: text('meta_prefix'), file: plan.meta },
  ];
  if (choice.type === 'localfs') await pushLocal(text('dir'), files);
  else await pushObjects(ctx, choice, files);
}

/** @returns exit status */
export async function runBuild(ctx: NydusifyContext): Promise<number> {
  const plan = planOf(ctx);
  const known = knownBlobs(plan);
  await mkdir(plan.output, { recursive: true });
  const json = join(plan.output, 'output.json');
  const optional = [
    ...(plan.parent === undefined ? [] : ['--parent-bootstrap', plan.parent]),
    ...(plan.dictionary === undefined ? [] : ['--chunk-dict', `bootstrap=${plan.dictionary}`]),
  ];
  const format = (name: string): string => ctx.values.text(name) ?? '';
  await runBuilder(ctx, [
    'create',
    ...optional,
    '--bootstrap',
    plan.meta,
    '--log-level',
    'warn',
    '--whiteout-spec',
    'oci',
    '--output-json',
    json,
    '--blob',
    plan.blob,
    '--fs-version',
    format('fs-version'),
    '--compressor',
    format('compressor'),
    '--chunk-size',
    format('chunk-size'),
    plan.source,
  ]);
  const id = (await blobsOf(json)).find((blob) => !known.has(blob));
  const written = (await stat(plan.blob).catch(() => undefined)) !== undefined;
  let blob: string | undefined;
  if (id === undefined) await rm(plan.blob, { force: true });
  else if (written && plan.parent === undefined && plan.push === undefined) blob = plan.blob;
  else if (written) {
    blob = join(plan.output, id);
    await rename(plan.blob, blob);
  }
  if (plan.push !== undefined) await push(ctx, plan.push, plan, blob);
  ctx.log.info(`built ${plan.meta}${blob === undefined ? ', no new data' : ` and ${blob}`}`);
  return 0;
}
