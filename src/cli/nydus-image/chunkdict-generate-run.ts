// `nydus-image chunkdict generate`: checks, dictionary, result. Source: nydus-image 1.5, 5.5.
import { statSync } from 'node:fs';
import { UsageError } from '../../base/errors.ts';
import { generateChunkdict } from '../../build/chunkdict/generate.ts';
import type { CommandContext } from '../command.ts';
import { chunkLine } from './check-run.ts';
import type { GenerateValues } from './chunkdict-generate.ts';
import { chunksOf, walkFacts } from './inode-facts.ts';
import { openImageFile } from './open-image.ts';
import { resultDocument, writeResultFile } from './result-file.ts';
import { checkConfigFile, openCommandLog } from './shared.ts';

/** @returns exit status */
export async function runGenerate(ctx: CommandContext, values: GenerateValues): Promise<number> {
  const log = openCommandLog(ctx, values);
  try {
    const { bootstrap, 'blob-dir': blobDir, 'output-json': output, SOURCE: sources, database } = values;
    if (bootstrap === undefined && blobDir === undefined)
      throw new UsageError(
        'both --bootstrap and --blob-dir are missing, please specify one to store the generated metadata blob file',
        { exitCode: 1 },
      );
    if (bootstrap === undefined && statSync(blobDir ?? '', { throwIfNoEntry: false })?.isDirectory() !== true)
      throw new UsageError('directory to store blobs does not exist', { exitCode: 1 });
    checkConfigFile(values.config, log);
    const show = (line: string): void => void ctx.stdout.write(`${line}\n`);
    const result = await generateChunkdict({ sources, database, bootstrap, blobDir }, log, show);
    if (values.verbose) {
      const file = await openImageFile(result.bootstrap, log);
      try {
        for (const facts of walkFacts(file.image))
          for (const chunk of chunksOf(file.image, facts)) show(chunkLine(chunk));
      } finally {
        file.close();
      }
    }
    if (output !== undefined) writeResultFile(output, resultDocument(result));
    return 0;
  } finally {
    await log.close();
  }
}
