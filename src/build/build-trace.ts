// Times and counters of a build for the result file. Source: nydus-image-and-nydusify.md 1.5.

/** Points of `consumed_time`. */
export type TracePoint =
  | 'build_tree'
  | 'load_from_directory'
  | 'build_bootstrap'
  | 'dump_blob'
  | 'dump_bootstrap'
  | 'import_chunk_dict'
  | 'load_tree_from_bootstrap'
  | 'merge_bootstrap'
  | 'total_build';

/** Collects them; one for each build. */
export class BuildTrace {
  readonly consumedTime: Record<string, number> = {};
  readonly events: Record<string, number | string> = {};

  constructor() {
    this.events['euid'] = String(process.geteuid?.() ?? 0);
    this.events['egid'] = String(process.getegid?.() ?? 0);
  }

  /** Run a step and note how many seconds it took. */
  async measure<T>(point: TracePoint, step: () => Promise<T> | T): Promise<T> {
    const start = performance.now();
    try {
      return await step();
    } finally {
      this.consumedTime[point] = (this.consumedTime[point] ?? 0) + (performance.now() - start) / 1000;
    }
  }

  /** Note a counter; one that is 0 is left out, as upstream never registers it. */
  count(event: string, value: number): void {
    if (value > 0) this.events[event] = value;
  }
}
