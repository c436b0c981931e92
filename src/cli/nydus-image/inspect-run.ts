// `nydus-image inspect`: one request, or a prompt. Source: nydus-image 4.2.
import { createInterface } from 'node:readline';
import { FormatError, UsageError, messageOf } from '../../base/errors.ts';
import type { CommandContext } from '../command.ts';
import { CommandFailure } from '../report.ts';
import { imagePath } from './image-options.ts';
import { INSPECT_HELP, Inspector, type Answer } from './inspector.ts';
import type { InspectValues } from './inspect.ts';
import { openImageFile } from './open-image.ts';
import { checkConfigFile, openCommandLog } from './shared.ts';

const PROMPT = 'Inspecting RAFS :> ';

/** What a line came to. */
type Outcome =
  | { kind: 'answer'; answer: Answer }
  | { kind: 'nothing' }
  | { kind: 'exit' }
  | { kind: 'help' }
  | { kind: 'unsupported'; text: string }
  | { kind: 'bad argument'; text: string };

function wholeNumber(text: string): number | undefined {
  const value = /^\+?[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Do what a line says. Words beyond the second are ignored. */
export function inspectLine(inspector: Inspector, line: string): Outcome {
  const [name, argument] = line.split(/\s+/).filter((word) => word !== '');
  const answer = (a: Answer): Outcome => ({ kind: 'answer', answer: a });
  if (name === undefined) return { kind: 'nothing' };
  switch (`${name}${argument === undefined ? '' : ' _'}`) {
    case 'help':
      return { kind: 'help' };
    case 'exit':
    case 'q':
      return { kind: 'exit' };
    case 'stats':
      return answer(inspector.stats());
    case 'blobs':
      return answer(inspector.blobs());
    case 'prefetch':
      return answer(inspector.prefetch());
    case 'ls':
      return answer(inspector.ls());
    case 'cd _':
      return answer(inspector.cd(argument as string));
    case 'stat _':
      return answer(inspector.stat(argument as string));
    case 'chunk _': {
      const offset = wholeNumber(argument as string);
      if (offset !== undefined) return answer(inspector.chunk(offset));
      return { kind: 'bad argument', text: 'Wrong OFFSET is specified. Is it a valid u64 value?\n' };
    }
    case 'icheck _': {
      const ino = wholeNumber(argument as string);
      if (ino !== undefined) return answer(inspector.icheck(ino));
      return { kind: 'bad argument', text: 'Wrong INODE is specified. Is it a inode number?\n' };
    }
    default:
      return { kind: 'unsupported', text: `Unsupported command: ${name}\n${INSPECT_HELP}` };
  }
}

function wrong(message: string): UsageError {
  return new UsageError(message, { exitCode: 1, hint: "try --request stats, or 'help' at the prompt" });
}

function answerRequest(ctx: CommandContext, inspector: Inspector, request: string): void {
  let outcome: Outcome;
  try {
    outcome = inspectLine(inspector, request);
  } catch (error) {
    throw new CommandFailure(`failed to execute inspect request \`${request}\``, error);
  }
  switch (outcome.kind) {
    case 'answer': {
      const { text, json } = outcome.answer;
      ctx.stdout.write(json === null ? `${text}null` : JSON.stringify(json));
      return;
    }
    case 'nothing':
    case 'exit':
      ctx.stdout.write('null');
      return;
    case 'help':
      ctx.stdout.write(INSPECT_HELP);
      throw wrong('help is not supported in inspect request mode');
    case 'unsupported':
      ctx.stdout.write(outcome.text);
      throw wrong(`unsupported inspect request \`${request}\``);
    case 'bad argument':
      ctx.stdout.write(outcome.text);
      throw wrong(`invalid arguments in inspect request \`${request}\``);
  }
}

/** One line at the prompt. @returns false to leave */
function answerLine(ctx: CommandContext, inspector: Inspector, line: string): boolean {
  let outcome: Outcome;
  try {
    outcome = inspectLine(inspector, line);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    ctx.stderr.write(`${messageOf(error)}\n`); // a damaged inode is worth a look at the others
    return true;
  }
  switch (outcome.kind) {
    case 'answer':
      ctx.stdout.write(outcome.answer.text);
      return true;
    case 'nothing':
      return true;
    case 'exit':
      return false;
    case 'help':
      ctx.stdout.write(INSPECT_HELP);
      return true;
    case 'unsupported':
    case 'bad argument':
      ctx.stdout.write(outcome.text);
      return true;
  }
}

/** @returns exit status */
export async function runInspect(ctx: CommandContext, values: InspectValues): Promise<number> {
  const log = openCommandLog(ctx, values);
  try {
    checkConfigFile(values.config, log);
    const { path, stored } = imagePath(values);
    const file = await openImageFile(path, log, stored);
    try {
      const inspector = new Inspector(file);
      if (values.request !== undefined) {
        answerRequest(ctx, inspector, values.request);
        return 0;
      }
      ctx.stdout.write(PROMPT);
      for await (const line of createInterface({ input: ctx.stdin, signal: ctx.signal })) {
        if (!answerLine(ctx, inspector, line)) return 0;
        ctx.stdout.write(PROMPT);
      }
      ctx.stdout.write('\n');
      return 0;
    } finally {
      file.close();
    }
  } finally {
    await log.close();
  }
}
