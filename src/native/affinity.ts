// On which CPUs a thread may run. Source: sched_setaffinity(2): the calls concern one thread, 0 is the calling one.
import { check, libcFunction } from './libc.ts';

/** Bytes of a cpu_set_t; the kernel wants at least as many bits as it was built for (NR_CPUS, at most 8192 so far). */
const SET_BYTES = 1024;

type GetAffinity = (tid: number, size: number, set: Uint8Array) => number;

/** Numbers of the CPUs that the calling thread may run on, ascending. SystemError where the kernel does not say. */
export function allowedCpus(): number[] {
  const set = Buffer.alloc(SET_BYTES);
  const get = libcFunction<GetAffinity>('int sched_getaffinity(int pid, size_t size, _Out_ uint8_t *mask)');
  check('sched_getaffinity', get(0, SET_BYTES, set));
  const cpus: number[] = [];
  set.forEach((byte, at) => {
    for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) cpus.push(at * 8 + bit);
  });
  return cpus;
}

/** Keep the calling thread on one CPU. SystemError when that CPU is not allowed (any more). */
export function bindThread(cpu: number): void {
  const set = Buffer.alloc(SET_BYTES);
  set[cpu >> 3] = 1 << (cpu & 7);
  const bind = libcFunction<GetAffinity>('int sched_setaffinity(int pid, size_t size, void *mask)');
  check('sched_setaffinity', bind(0, SET_BYTES, set), `CPU ${cpu}`);
}
