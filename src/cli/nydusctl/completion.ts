// `nydusctl completion`: one script for all programs.
import { command } from '../command.ts';
import { completionScript, SHELLS } from '../completion.ts';

export const completion = command({
  name: 'nydusctl completion',
  summary: 'Print a shell script that completes the commands of all programs',
  options: {},
  positionals: { SHELL: { required: true, values: SHELLS, help: 'the shell the script is for' } },
  examples: [
    'source <(nydusctl completion bash)',
    'nydusctl completion zsh > ~/.zsh_completion_nydus',
    'nydusctl completion fish > ~/.config/fish/completions/nydus.fish',
  ],
  run: async (ctx, values) => {
    const programs = [
      (await import('./program.ts')).nydusctl,
      (await import('../nydusd.ts')).nydusd,
      (await import('../nydus-image/program.ts')).nydusImage,
      (await import('../nydusify/program.ts')).nydusify,
    ];
    ctx.stdout.write(await completionScript(values.SHELL, programs));
    return 0;
  },
});
