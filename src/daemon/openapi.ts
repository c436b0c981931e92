// The OpenAPI document of the API, written to docs/openapi.json by tools/openapi.ts. Source: nydusd.md 5.3.
import { ref, schemas, type Schema } from './openapi-schemas.ts';

interface Operation {
  summary: string;
  query?: readonly Parameter[];
  body?: Schema;
  /** what 200 carries; without it the success is 204 */
  answer?: Schema;
  /** a text instead of JSON */
  text?: true;
  /** false: this daemon never does it */
  succeeds?: false;
  /** other successes and refusals worth knowing */
  also?: Readonly<Record<number, string>>;
}

interface Parameter {
  name: string;
  required: boolean;
  description: string;
}

const MOUNTPOINT: Parameter = {
  name: 'mountpoint',
  required: true,
  description: 'where in the mount of the daemon',
};
const ID: Parameter = {
  name: 'id',
  required: false,
  description: 'the mountpoint; may be left out when one object of the kind exists',
};
const CACHE_ID: Parameter = { ...ID, description: "the configuration's id; empty when it has none" };
const LATEST: Parameter = {
  name: 'latest',
  required: false,
  description: 'true: the ranges of inodes read since the last call',
};
const DOMAIN: Parameter = { name: 'domain_id', required: false, description: 'domain of blobs' };
const BLOB: Parameter = { name: 'blob_id', required: false, description: 'one blob' };
const NO_COUNTER = { 404: 'nothing is counted under the id' };
const NO_SINGLETON = { 501: 'this daemon has no blob manager' };
const FAILED = { 500: 'it failed; the message says at what' };
const REFUSED = { 500: 'a key or value that is none' };

const info = (v: string): Operation => ({
  summary: `The daemon, its state${v === 'v1' ? ' and what is mounted' : ''}`,
  answer: ref('DaemonInfo'),
});
const setLogLevel: Operation = {
  summary: 'Change the level of the log',
  body: ref('DaemonConf'),
  also: REFUSED,
};
const mountBody: Schema = { oneOf: [ref('MountCommand'), ref('OlderMountCommand')] };

/** Every operation by method and path, as the router has them. */
export const operations: Readonly<Record<string, Operation>> = {
  'GET /api/v1/daemon': info('v1'),
  'PUT /api/v1/daemon': setLogLevel,
  'GET /api/v2/daemon': info('v2'),
  'PUT /api/v2/daemon': setLogLevel,
  'GET /api/v1/daemon/events': { summary: 'Errors that no request heard of', answer: ref('Events') },
  'GET /api/v1/daemon/backend': {
    summary: 'The superblock of a mounted image',
    query: [MOUNTPOINT],
    answer: ref('SuperMeta'),
    also: { 500: 'no image is mounted there' },
  },
  'PUT /api/v1/daemon/start': { summary: 'Serve: READY becomes RUNNING' },
  'PUT /api/v1/daemon/exit': { summary: 'End the process and leave the mount for a successor' },
  'PUT /api/v1/daemon/fuse/sendfd': {
    summary: 'Send state and device to the supervisor',
    also: {
      500: 'the supervisor did not take it',
      503: 'there is no mount, or the kernel has not begun yet',
    },
  },
  'PUT /api/v1/daemon/fuse/takeover': {
    summary: 'Take state and device from the supervisor: INIT becomes READY',
    also: { 500: 'the supervisor has none, or what it has cannot be restored' },
  },
  'POST /api/v1/mount': {
    summary: 'Mount an image or a directory',
    query: [MOUNTPOINT],
    body: mountBody,
    also: FAILED,
  },
  'PUT /api/v1/mount': {
    summary: 'Put another image in the place of a mounted one; the older form mounts where nothing is',
    query: [{ ...MOUNTPOINT, required: false }],
    body: mountBody,
    also: FAILED,
  },
  'DELETE /api/v1/mount': { summary: 'Unmount', query: [MOUNTPOINT], also: FAILED },
  'GET /api/v1/metrics': {
    summary: 'Counters of the filesystem',
    query: [ID],
    answer: ref('FsMetrics'),
    also: NO_COUNTER,
  },
  'GET /api/v1/metrics/files': {
    summary: 'Counters by file, where the configuration has iostats_files or latest_read_files',
    query: [ID, LATEST],
    answer: { oneOf: [ref('FileMetrics'), ref('LatestFiles')] },
    also: NO_COUNTER,
  },
  'GET /api/v1/metrics/pattern': {
    summary: 'Which files were read and when first, where the configuration has access_pattern',
    query: [ID],
    answer: ref('AccessPattern'),
    also: NO_COUNTER,
  },
  'GET /api/v1/metrics/backend': {
    summary: 'Counters of the backend',
    query: [ID],
    answer: ref('BackendMetrics'),
    also: NO_COUNTER,
  },
  'GET /api/v1/metrics/blobcache': {
    summary: 'Counters of the cache',
    query: [CACHE_ID],
    answer: ref('BlobcacheMetrics'),
    also: NO_COUNTER,
  },
  'GET /api/v1/metrics/inflight': {
    summary: 'Requests that are being served',
    answer: ref('Inflight'),
    also: { 204: 'none is' },
  },
  'GET /api/v1/config': {
    summary: 'Settings that may change while the daemon runs',
    query: [ID],
    answer: ref('Settings'),
  },
  'PUT /api/v1/config': { summary: 'Change them', query: [ID], body: ref('Settings'), also: REFUSED },
  'GET /api/v2/blobs': {
    summary: 'Blobs of a shared cache',
    query: [DOMAIN, BLOB],
    succeeds: false,
    also: NO_SINGLETON,
  },
  'PUT /api/v2/blobs': {
    summary: 'Add a blob to it',
    body: ref('BlobCacheEntry'),
    succeeds: false,
    also: NO_SINGLETON,
  },
  'DELETE /api/v2/blobs': { summary: 'Take blobs away', query: [DOMAIN, BLOB], also: NO_SINGLETON },
  'GET /metrics': { summary: 'All counters for Prometheus', answer: { type: 'string' }, text: true },
};

const MALFORMED = { 400: 'the request is malformed, or not allowed in this state' };
const UNFORESEEN = 'what nobody has foreseen';

function responses({ answer, text, also, succeeds }: Operation): Record<string, unknown> {
  const error = { 'application/json': { schema: ref('Error') } };
  const out: Record<string, unknown> = {};
  if (answer === undefined && succeeds !== false) out['204'] = { description: 'done' };
  if (answer !== undefined) {
    const type = text === true ? 'text/plain' : 'application/json';
    out['200'] = { description: 'the answer', content: { [type]: { schema: answer } } };
  }
  for (const [status, description] of Object.entries({ ...MALFORMED, ...also })) {
    out[status] = Number(status) < 400 ? { description } : { description, content: error };
  }
  out['default'] = { description: UNFORESEEN, content: error };
  return out;
}

function operationObject(operation: Operation): Record<string, unknown> {
  const { summary, query, body } = operation;
  const parameters = query?.map((parameter) => ({ ...parameter, in: 'query', schema: { type: 'string' } }));
  return {
    summary,
    ...(parameters === undefined ? {} : { parameters }),
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: { 'application/json': { schema: body } } } }),
    responses: responses(operation),
  };
}

/** The document. */
export function openApiDocument(): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const [key, operation] of Object.entries(operations)) {
    const [method = '', path = ''] = key.split(' ');
    (paths[path] ??= {})[method.toLowerCase()] = operationObject(operation);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'nydusd',
      version: '1',
      description:
        'The HTTP API of nydusd, on the Unix socket that --apisock names. Errors are told in the words of upstream nydus, which its clients match on.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: 'http://localhost' }],
    paths,
    components: { schemas },
  };
}
