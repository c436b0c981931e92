// Options, tables and small steps that several nydus-image subcommands share. Source: nydus-image 1.1, 1.4.
import { statSync } from 'node:fs';
import { createLogSink, fileTarget, type LogSink, type LogTarget } from '../../base/log-sink.ts';
import type { LogLevel, Logger } from '../../base/log.ts';
import { readConfigFile } from '../../storage/config-parse.ts';
import type { ConfigV2 } from '../../storage/config.ts';
import type { CommandContext } from '../command.ts';

/** Options of the program and of every subcommand. */
export const globalOptions = {
  'log-file': {
    type: 'string',
    short: 'L',
    global: true,
    help: 'append the log to this file instead of stderr',
  },
  'log-level': {
    type: 'string',
    short: 'l',
    global: true,
    default: 'info',
    values: ['trace', 'debug', 'info', 'warn', 'error'],
    help: 'least important kind of message to log',
  },
} as const;

/** Values of the options above as every subcommand receives them. */
export interface GlobalValues {
  'log-file'?: string | undefined;
  'log-level'?: string | undefined;
}

/** The log that the command line asks for; close it before the command ends. */
export function openCommandLog(ctx: CommandContext, values: object): LogSink {
  const { 'log-file': file, 'log-level': level } = values as GlobalValues;
  const stderr: LogTarget = { write: (line) => void ctx.stderr.write(line), close: async () => {} };
  const target = file === undefined ? stderr : fileTarget(file);
  const color = file === undefined && ctx.stderr.isTTY === true && (ctx.env['NO_COLOR'] ?? '') === '';
  return createLogSink({ level: (level ?? 'info') as LogLevel, target, color });
}

/** The configuration that an option names. @throws UsageError exit 1  it is wrong; system errors, when it is not there */
export function readConfig(path: string, logger: Logger): ConfigV2 {
  statSync(path); // a missing file is told in the words of the system
  const { config, warnings } = readConfigFile(path);
  for (const warning of warnings) logger.warn(warning);
  return config;
}

/** Parse it where nothing of it is needed, so that a wrong one is told before work begins. */
export function checkConfigFile(path: string | undefined, logger: Logger): void {
  if (path !== undefined) readConfig(path, logger);
}
