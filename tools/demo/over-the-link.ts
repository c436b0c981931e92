// The demo itself: push, convert, start over the link with nydus, start over the link as everybody does, compare.
import { countChunks } from './image.ts';
import { writeLayout } from './layers-oci.ts';
import { makeLayers } from './layers.ts';
import { commandOf, runContainer, runDemo, type Run } from './program.ts';
import { pullBootstrap, pullWhole, settingsOf, sizeOf, type Place } from './pull.ts';
import { link, startRegistry, type DemoRegistry } from './registry.ts';
import { cachedChunks, program, serve } from './serve.ts';
import { duration, megabytes, share, step, table, times, versusRows } from './table.ts';
import { visibleBytes } from './visible.ts';
import type { Workshop } from './workshop.ts';

const REPOSITORY = 'demo/app';
const TAG = 'v1';
const NYDUS_TAG = 'v1-nydus';

type RunFrom = (root: string) => Promise<Run>;

/** One way of starting the image. Times are milliseconds from "nothing is here". */
interface Started {
  wireBytes: number;
  readyMs: number;
  firstOutputMs: number;
  doneMs: number;
  run: Run;
}

class Demo {
  readonly #shop: Workshop;
  readonly #repo: string;
  readonly #registry: DemoRegistry;

  constructor(shop: Workshop, repo: string, registry: DemoRegistry) {
    this.#shop = shop;
    this.#repo = repo;
    this.#registry = registry;
  }

  #nydusify(...args: string[]): Promise<string> {
    const [file = '', ...first] = program(this.#repo, 'nydusify');
    const [name = '', ...rest] = args;
    const log = ['--log-level', 'warn'];
    return this.#shop.run(file, [...first, ...log, name, '--work-dir', this.#shop.path('work'), ...rest]);
  }

  #near(tag: string): Place {
    return { host: this.#registry.host, repository: REPOSITORY, tag };
  }

  #far(tag: string): Place {
    return { ...this.#near(tag), host: this.#registry.farHost };
  }

  /** Put the image into the registry. @param from what `nydusify copy` takes */
  async push(from: string): Promise<void> {
    const done = step('pushing it to a registry of our own (nydusify copy)');
    await this.#nydusify('copy', '--source', from, '--target', `${this.#registry.host}/${REPOSITORY}:${TAG}`);
    done(`${megabytes(await sizeOf(this.#near(TAG)))} of layers`);
  }

  async convert(): Promise<void> {
    const done = step('nydusify convert');
    const name = `${this.#registry.host}/${REPOSITORY}`;
    await this.#nydusify(
      'convert',
      '--source',
      `${name}:${TAG}`,
      '--target',
      `${name}:${NYDUS_TAG}`,
      '--progress',
      'none',
    );
    done(`${megabytes(await sizeOf(this.#near(NYDUS_TAG)))} of blobs`);
  }

  settings(): ReturnType<typeof settingsOf> {
    return settingsOf(this.#near(TAG));
  }

  #wire(): number {
    return this.#registry.proxy.bytes().toClient;
  }

  #measure(before: number, readyMs: number, run: Run): Started {
    const { firstOutputMs, totalMs } = run;
    return {
      run,
      readyMs,
      wireBytes: this.#wire() - before,
      firstOutputMs: readyMs + firstOutputMs,
      doneMs: readyMs + totalMs,
    };
  }

  /** Bootstrap, mount, program; then a second run, and what a user sees. */
  async lazily(
    runFrom: RunFrom,
  ): Promise<{ cold: Started; warm: Run; warmBytes: number; notes: string[][] }> {
    const [begin, before] = [performance.now(), this.#wire()];
    const mounting = step('mounting it over the link: only the bootstrap is fetched');
    const bootstrap = await pullBootstrap(this.#far(NYDUS_TAG), this.#shop.folder('bootstrap'));
    const nydusd = program(this.#repo, 'nydusd');
    const served = await serve(this.#shop, nydusd, bootstrap, {
      type: 'registry',
      config: { scheme: 'http', host: this.#registry.farHost, repo: REPOSITORY },
    });
    const readyMs = performance.now() - begin;
    mounting();
    const running = step('starting the program from the mount, cold');
    const cold = this.#measure(before, readyMs, await runFrom(served.mountpoint));
    running(`${megabytes(cold.wireBytes)} over the wire`);
    const between = this.#wire();
    const again = step('starting it again, warm');
    const warm = await runFrom(served.mountpoint);
    again();
    const warmBytes = this.#wire() - between;
    const chunks = await countChunks(this.#shop, program(this.#repo, 'nydus-image'), bootstrap);
    const verified = cachedChunks(this.#shop.path('cache'));
    const seen = visibleBytes(served.mountpoint);
    await served.stop();
    const blobs = await sizeOf(this.#near(NYDUS_TAG));
    return {
      cold,
      warm,
      warmBytes,
      notes: [
        ['image, as its user sees it', megabytes(seen.bytes), `${seen.files} files`],
        [
          'share of the image fetched',
          share(cold.wireBytes, blobs),
          `of ${megabytes(blobs)} in the registry`,
        ],
        ['digests verified', String(verified), `of ${chunks} chunks, before anybody saw a byte`],
      ],
    };
  }

  /** Download, unpack, program. */
  async wholly(runFrom: RunFrom): Promise<Started> {
    const [begin, before] = [performance.now(), this.#wire()];
    const pulling = step('the old way: downloading all layers over the same link, unpacking');
    const root = await pullWhole(this.#shop, this.#far(TAG));
    const readyMs = performance.now() - begin;
    pulling();
    const running = step('starting the program from the unpacked tree');
    const started = this.#measure(before, readyMs, await runFrom(root));
    running(`${megabytes(started.wireBytes)} over the wire`);
    return started;
  }
}

function show(output: string): void {
  const lines = output.trimEnd().split('\n');
  const shown = lines.length > 12 ? [...lines.slice(0, 12), '…'] : lines;
  process.stdout.write(`\n${shown.join('\n').replace(/^/gm, '      ')}\n\n`);
}

/**
 * Run the demo on the image of this machine's Node, or on a user's.
 *
 * @param image reference in a registry
 * @returns the table
 */
export async function demoImage(shop: Workshop, repo: string, image: string | undefined): Promise<string> {
  const own = image !== undefined && image !== '';
  if (own && process.getuid?.() !== 0) throw new Error('IMAGE=… starts a container: run it as root');
  const starting = step('a registry, and a link to it');
  const registry = await startRegistry(shop, program(repo, 'nydusify'));
  starting(`${link.mbit} Mbit/s, ${link.rttMs} ms round trip`);
  const demo = new Demo(shop, repo, registry);
  let runFrom: RunFrom = (root) => runDemo(shop, root);
  if (own) {
    await demo.push(image);
    const settings = await demo.settings();
    if (commandOf(settings).length === 0)
      throw new Error(`${image} names no program to start: say one with DEMO_COMMAND='…'`);
    runFrom = (root) => runContainer(shop, root, settings);
  } else {
    const making = step('collecting layers from this machine: Node, an application, an update');
    const layers = await makeLayers(repo, shop, process.execPath);
    making();
    const packing = step('packing them as docker does');
    await writeLayout(shop.path('layout'), layers);
    packing();
    await demo.push(`file://${shop.path('layout')}`);
  }
  await demo.convert();
  const { cold, warm, warmBytes, notes } = await demo.lazily(runFrom);
  show(cold.run.output);
  if (!own && cold.run.output.includes('NO')) throw new Error('a deleted file is visible in the mount');
  const whole = await demo.wholly(runFrom);
  await registry.proxy.close();
  if (!own && whole.run.output !== cold.run.output) throw new Error('both ways must say the same');
  const title = `${own ? image : 'one image'}, over ${link.mbit} Mbit/s with ${link.rttMs} ms round trip`;
  return table(title, [
    ...versusRows([
      [
        'bytes over the wire',
        megabytes(whole.wireBytes),
        megabytes(cold.wireBytes),
        times(whole.wireBytes, cold.wireBytes, 'fewer'),
      ],
      ['ready to start after', duration(whole.readyMs), duration(cold.readyMs)],
      [
        'time to first output',
        duration(whole.firstOutputMs),
        duration(cold.firstOutputMs),
        times(whole.firstOutputMs, cold.firstOutputMs, 'sooner'),
      ],
      ...(own
        ? []
        : [
            ['program done after', duration(whole.doneMs), duration(cold.doneMs)] as [string, string, string],
          ]),
    ]),
    'line',
    ...notes.map(([label = '', value = '', note = '']): [string, string, string] => [label, value, note]),
    [
      'started again, warm',
      duration(warm.firstOutputMs),
      `to first output; ${megabytes(warmBytes)} over the wire`,
    ],
  ]);
}
