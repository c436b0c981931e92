// `nydusify check`: opens both images, writes down what they are, applies the rules, mounts and compares.
// Source: nydus-image-and-nydusify.md 9.4.
import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { messageOf, NydusError, UsageError } from '../../base/errors.ts';
import { mountOci, type MountedTree } from '../../convert/check/overlay.ts';
import { parseImages, type ParsedImage, type ParsedReference } from '../../convert/check/parsed-image.ts';
import { blobProblems, judged, manifestProblems, readBootstrap } from '../../convert/check/rules.ts';
import { compareTrees, differenceText } from '../../convert/check/walk.ts';
import { extractBootstrap } from '../../convert/mount/bootstrap-files.ts';
import { nydusdCommand } from '../../convert/mount/nydusd-program.ts';
import { Nydusd } from '../../convert/mount/nydusd.ts';
import { parsePlatforms, type PlatformSpec } from '../../convert/platform.ts';
import type { NydusifyContext } from './context.ts';
import { backendSection, openSide, wantsValidation, type ImageSide } from './image-side.ts';

type RuleName = 'manifest' | 'bootstrap' | 'filesystem';

interface RuleResult {
  rule: RuleName;
  problems: string[];
  /** problems past the limit of the list */
  more: number;
}

/** One of the two images while it is checked. */
interface Checked {
  side: ImageSide;
  parsed: ParsedReference;
  /** where what it is made of is written */
  dir: string;
  /** of its nydus image */
  bootstrap: string | undefined;
}

function wrong(message: string): UsageError {
  return new UsageError(message, { exitCode: 1 });
}

async function dump(checked: Checked, signal: AbortSignal): Promise<void> {
  const { parsed, dir, side } = checked;
  await mkdir(dir, { recursive: true });
  const write = (name: string, value: unknown): Promise<void> =>
    writeFile(join(dir, name), JSON.stringify(value, undefined, 2));
  const indexName = parsed.nydus === undefined ? 'oci_index.json' : 'nydus_index.json';
  if (parsed.index !== undefined) await write(indexName, parsed.index);
  for (const kind of ['oci', 'nydus'] as const) {
    const image = parsed[kind];
    if (image === undefined) continue;
    await write(`${kind}_manifest.json`, image.manifestJson);
    await write(`${kind}_config.json`, image.config);
  }
  const last = parsed.nydus?.manifest.layers.at(-1);
  if (parsed.nydus === undefined || last === undefined) return;
  const found = await extractBootstrap(side.source.layer(last), join(dir, 'nydus_bootstrap'), signal);
  const expected = String(parsed.nydus.diffIds.at(-1));
  if (found.diffId !== expected)
    throw wrong(
      `invalid bootstrap layer diff id: ${found.diffId} (calculated) != ${expected} (in image config)`,
    );
  checked.bootstrap = found.bootstrap;
}

/** Run the check of another builder. @returns blobs and the problem it reports */
async function foreignCheck(
  program: string,
  bootstrap: string,
  output: string,
  signal: AbortSignal,
): Promise<{ blobs: string[]; problems: string[] }> {
  const args = ['check', '--log-level', 'warn', '--output-json', output, '--bootstrap', bootstrap];
  const failure = await new Promise<string | undefined>((done) => {
    execFile(program, args, { signal, maxBuffer: 1 << 24 }, (error, _, stderr) =>
      done(error === null ? undefined : `${program} check: ${stderr.trim() || error.message}`),
    );
  });
  signal.throwIfAborted();
  if (failure !== undefined) return { blobs: [], problems: [failure] };
  const { blobs } = JSON.parse(await readFile(output, 'utf8')) as { blobs?: unknown };
  return { blobs: Array.isArray(blobs) ? blobs.map(String) : [], problems: [] };
}

async function bootstrapRule(ctx: NydusifyContext, sides: readonly Checked[]): Promise<RuleResult> {
  const problems: string[] = [];
  const program = ctx.values.text('nydus-image') ?? '';
  for (const { parsed, bootstrap, dir } of sides) {
    if (parsed.nydus === undefined || bootstrap === undefined) continue;
    const output = join(dir, 'nydus_output.json');
    let found: { blobs: string[]; problems: string[] };
    if (program !== '') found = await foreignCheck(program, bootstrap, output, ctx.signal);
    else {
      try {
        found = readBootstrap(bootstrap);
      } catch (error) {
        if (!(error instanceof NydusError)) throw error;
        found = { blobs: [], problems: [error.message] };
      }
      await writeFile(output, JSON.stringify({ bootstrap, blobs: found.blobs }));
    }
    problems.push(...found.problems.map((problem) => `bootstrap of ${parsed.name}: ${problem}`));
    problems.push(...blobProblems(parsed.nydus, found.blobs));
  }
  return { rule: 'bootstrap', problems, more: 0 };
}

async function mountNydus(ctx: NydusifyContext, checked: Checked, image: ParsedImage): Promise<MountedTree> {
  const { side, dir, bootstrap } = checked;
  const daemonDir = join(dir, 'nydusd');
  const root = join(dir, 'mnt');
  const daemon = await Nydusd.start(
    {
      command: nydusdCommand(ctx.values.text('nydusd'), process.argv[1]),
      bootstrap: bootstrap ?? '',
      mountpoint: root,
      backend: await backendSection(ctx, side, image, join(daemonDir, 'blobs')),
      configFile: join(daemonDir, 'config.json'),
      apiSocket: join(daemonDir, 'api.sock'),
      cacheDir: join(daemonDir, 'cache'),
      prefetch: true,
      digestValidate: wantsValidation(image),
      logger: ctx.log,
    },
    ctx.signal,
  );
  return {
    root,
    close: async () => {
      await daemon.stop();
      // the configuration may hold credentials, the cache is as large as the image
      await rm(daemonDir, { recursive: true, force: true });
      await rm(root, { recursive: true, force: true });
    },
  };
}

function mountSide(ctx: NydusifyContext, checked: Checked): Promise<MountedTree> {
  const image = judged(checked.parsed);
  if (image === undefined) throw wrong(`${checked.parsed.name} holds no image`);
  if (checked.parsed.oci === undefined) return mountNydus(ctx, checked, image);
  return mountOci(checked.side.source, image.manifest.layers, checked.dir, ctx.log, ctx.signal);
}

async function filesystemRule(ctx: NydusifyContext, source: Checked, target: Checked): Promise<RuleResult> {
  const left = await mountSide(ctx, source);
  try {
    const right = await mountSide(ctx, target);
    try {
      const result = await compareTrees(left.root, right.root, ctx.signal);
      ctx.log.info(`compared ${result.entries} entries, ${result.bytes} bytes of files`);
      const problems = result.differences.map(differenceText);
      return { rule: 'filesystem', problems, more: result.count - problems.length };
    } finally {
      await right.close();
    }
  } finally {
    await left.close();
  }
}

async function applyRules(
  ctx: NydusifyContext,
  source: Checked | undefined,
  target: Checked,
): Promise<RuleResult[]> {
  const sides = source === undefined ? [target] : [source, target];
  for (const checked of sides) await dump(checked, ctx.signal);
  const results: RuleResult[] = [
    { rule: 'manifest', problems: manifestProblems(source?.parsed, target.parsed), more: 0 },
    await bootstrapRule(ctx, sides),
  ];
  const whole = results.every(({ rule, problems }) => rule === 'manifest' || problems.length === 0);
  if (source !== undefined && whole) results.push(await filesystemRule(ctx, source, target));
  return results;
}

function report(ctx: NydusifyContext, results: readonly RuleResult[], sides: readonly Checked[]): void {
  const failed = results.filter(({ problems }) => problems.length > 0);
  if (ctx.values.text('output') === 'json') {
    const [target, source] = sides.toReversed();
    const document = {
      ok: failed.length === 0,
      source: source?.side.reference ?? null,
      target: target?.side.reference,
      rules: results.map(({ rule, problems, more }) => ({
        rule,
        ok: problems.length === 0,
        problems,
        ...(more > 0 ? { more } : {}),
      })),
    };
    ctx.stdout.write(`${JSON.stringify(document, undefined, 2)}\n`);
  }
  for (const { rule, problems, more } of failed) {
    for (const problem of problems) ctx.log.error(`${rule}: ${problem}`);
    if (more > 0) ctx.log.error(`${rule}: and ${more} more`);
  }
  const first = failed[0];
  if (first !== undefined) throw wrong(`validate ${first.rule} failed: ${first.problems[0]}`);
}

async function openChecked(
  ctx: NydusifyContext,
  name: 'source' | 'target',
  platform: PlatformSpec,
  workDir: string,
): Promise<Checked> {
  const side = await openSide(ctx, name, `${name}-`);
  try {
    const parsed = await parseImages(side.source, platform, ctx.log, ctx.signal);
    return { side, parsed, dir: join(workDir, name), bootstrap: undefined };
  } catch (error) {
    await side.source.close();
    throw error;
  }
}

/** @returns exit status */
export async function runCheckImages(ctx: NydusifyContext): Promise<number> {
  const output = ctx.values.text('output');
  if (output !== 'text' && output !== 'json') throw wrong('--output should be one of [text json]');
  const [platform] = parsePlatforms(ctx.values.text('platform'));
  if (platform === undefined) throw wrong('--platform names no platform');
  const workDir = resolve(ctx.values.text('work-dir') ?? './output');
  try {
    for (const name of ['source', 'target']) await rm(join(workDir, name), { recursive: true, force: true });
    await mkdir(workDir, { recursive: true });
  } catch (error) {
    throw wrong(`cannot use work directory ${workDir}: ${messageOf(error)}`);
  }
  const sides: Checked[] = [];
  try {
    if ((ctx.values.text('source') ?? '') !== '')
      sides.push(await openChecked(ctx, 'source', platform, workDir));
    sides.push(await openChecked(ctx, 'target', platform, workDir));
    const target = sides.at(-1);
    if (target === undefined) return 1;
    report(ctx, await applyRules(ctx, sides.length === 2 ? sides[0] : undefined, target), sides);
    ctx.log.info('verified image');
    return 0;
  } finally {
    for (const { side } of sides) await side.source.close();
  }
}
