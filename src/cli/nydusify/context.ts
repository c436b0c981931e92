// What nydusify's commands receive beside the context of every command: their flags and the log.
import type { CommandContext } from '../command.ts';
import type { FlagValues } from './flags.ts';
import type { ProgramLog } from './log.ts';

export interface NydusifyContext extends CommandContext {
  log: ProgramLog;
  values: FlagValues;
}
