// `nydusify serve-registry`: the table of flags. Our own command; upstream has none like it.
import { command } from '../command.ts';
import type { NydusifyContext } from './context.ts';
import { shownOptions, type Flags } from './flags.ts';

export const serveRegistryFlags = {
  dir: {
    type: 'string',
    required: true,
    value: 'DIR',
    help: 'keep blobs and manifests here; made when it is missing, kept at the end',
  },
  listen: {
    type: 'string',
    default: '127.0.0.1:5000',
    value: 'HOST:PORT',
    help: 'address to listen on; port 0 takes a free one, which the first line of output names',
  },
  'users-file': {
    type: 'string',
    value: 'FILE',
    help: 'let in only these users: one name:password a line, in a file that nobody else can read',
  },
  'tls-cert': { type: 'string', value: 'FILE', help: 'serve HTTPS with this certificate, PEM' },
  'tls-key': { type: 'string', value: 'FILE', help: 'its key, PEM' },
} as const satisfies Flags;

export const serveRegistry = command({
  name: 'nydusify serve-registry',
  summary: 'Serve a small OCI registry, for trials and tests',
  description:
    'Docker, skopeo, nydusify and nydusd push to it and pull from it: uploads whole and in chunks, cross-repository mounts, ' +
    'ranges, tags, referrers. What is in the directory is there again at the next start. It ends with Ctrl-C. It deletes ' +
    'nothing by itself and knows no rights beyond its list of users: use a real registry for more than trials.',
  options: shownOptions(serveRegistryFlags),
  examples: [
    'nydusify serve-registry --dir ./registry',
    'nydusify serve-registry --dir ./registry --listen 0.0.0.0:5000 --users-file users.txt --tls-cert cert.pem --tls-key key.pem',
    'skopeo copy --dest-tls-verify=false docker://debian:12 docker://127.0.0.1:5000/debian:12',
    'nydusify convert --source 127.0.0.1:5000/debian:12 --target-suffix -nydus',
  ],
  run: async (ctx) => (await import('./serve-registry-run.ts')).runServeRegistry(ctx as NydusifyContext),
});
