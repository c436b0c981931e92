// The result file of `--output-json`, which nydusify and the snapshotter read. Source: nydus-image 1.5.
import { writeFileSync } from 'node:fs';
import { versionInfo } from '../../base/version.ts';
import type { CompressorName } from '../../codec/algorithms.ts';
import { CommandFailure } from '../report.ts';

/** What a command found or made, in the words of the result file. */
export interface ResultFacts {
  bootstrap: string;
  /** blob table, in order: the field all consumers read */
  blobs: readonly string[];
  externalBootstrap?: string;
  consumedTime: Readonly<Record<string, number>>;
  events: Readonly<Record<string, number | string>>;
  version: 5 | 6;
  compressor: CompressorName;
}

/** Result document, keys in upstream's order. */
export function resultDocument(facts: ResultFacts): Record<string, unknown> {
  const { package_ver: version, git_commit: commit } = versionInfo();
  return {
    version: `${version}-${commit}`,
    bootstrap: facts.bootstrap,
    blobs: facts.blobs,
    external_bootstrap: facts.externalBootstrap ?? '',
    external_blobs: [],
    trace: { consumed_time: facts.consumedTime, registered_events: facts.events },
    fs_version: String(facts.version),
    compressor: facts.compressor,
  };
}

/**
 * Write a result document; the file is created or truncated.
 *
 * @param pretty two blanks of indentation, as create and merge write it; check writes one line
 */
export function writeResultFile(path: string, document: unknown, pretty = true): void {
  try {
    writeFileSync(path, JSON.stringify(document, null, pretty ? 2 : undefined));
  } catch (error) {
    throw new CommandFailure(`can not open output file ${path}`, error);
  }
}
