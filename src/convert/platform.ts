// Platforms as users write them, and which entries of an index they select. Source: containerd platforms
// (os/arch/variant, its normalisation), nydus-image-and-nydusify.md 8.2.
import { arch } from 'node:process';
import { UsageError } from '../base/errors.ts';
import type { Platform } from './oci.ts';

/** os, architecture and variant; variant '' = none. */
export interface PlatformSpec {
  os: string;
  architecture: string;
  variant: string;
}

const ARCHITECTURES: Record<string, string> = {
  x86_64: 'amd64',
  'x86-64': 'amd64',
  aarch64: 'arm64',
  i386: '386',
  armhf: 'arm',
  armel: 'arm',
};
const NODE_ARCHITECTURES: Record<string, string> = { x64: 'amd64', arm64: 'arm64' };
const OS_NAMES = new Set(['linux', 'windows', 'darwin', 'freebsd']);

/** One spelling for what means the same: `arm64/v8` is `arm64`, `amd64/v1` is `amd64`, `arm` is `arm/v7`. */
function normal(os: string, architecture: string, variant: string): PlatformSpec {
  const name = architecture.toLowerCase();
  let known = ARCHITECTURES[name] ?? name;
  let version = variant.toLowerCase();
  if (/^[5-8]$/.test(version)) version = `v${version}`;
  if (name === 'armel') version = version === '' ? 'v6' : version;
  if (known === 'arm64' && version === 'v8') version = '';
  if (known === 'amd64' && version === 'v1') version = '';
  if (known === 'arm' && version === '') version = 'v7';
  return { os: os.toLowerCase(), architecture: known, variant: version };
}

/** Architecture of this machine in OCI's words. */
export function hostArchitecture(): string {
  return NODE_ARCHITECTURES[arch] ?? arch;
}

/** Text of a platform: `linux/arm/v7`. */
export function showPlatform(platform: Pick<Platform, 'os' | 'architecture' | 'variant'>): string {
  const { os, architecture, variant } = platform;
  return [os, architecture, ...(variant === undefined || variant === '' ? [] : [variant])].join('/');
}

function parseOne(text: string): PlatformSpec {
  const parts = text.split('/');
  if (parts.length > 3 || parts.some((part) => !/^[A-Za-z0-9_.-]+$/.test(part))) {
    throw new UsageError(`invalid platform "${text}"`, {
      exitCode: 1,
      hint: 'write os/architecture, such as linux/amd64',
    });
  }
  const [first = '', architecture, variant = ''] = parts;
  if (architecture !== undefined) return normal(first, architecture, variant);
  return OS_NAMES.has(first.toLowerCase())
    ? normal(first, hostArchitecture(), '')
    : normal('linux', first, '');
}

/** Platforms of a comma list; `linux/<host architecture>` when it is empty. */
export function parsePlatforms(text: string | undefined): PlatformSpec[] {
  const parts = (text ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
  return parts.length === 0 ? [normal('linux', hostArchitecture(), '')] : parts.map(parseOne);
}

/** Does an image's platform answer the wish? A wish without variant takes the plain one. */
export function matchesPlatform(
  wish: PlatformSpec,
  platform: Pick<Platform, 'os' | 'architecture' | 'variant'>,
): boolean {
  const found = normal(
    platform.os,
    platform.architecture,
    typeof platform.variant === 'string' ? platform.variant : '',
  );
  return found.os === wish.os && found.architecture === wish.architecture && found.variant === wish.variant;
}

/** Is an image wanted? One that says nothing of its platform is. @param platforms undefined = all are */
export function isWanted(
  platforms: readonly PlatformSpec[] | undefined,
  platform: Platform | undefined,
): boolean {
  if (platforms === undefined || platform === undefined) return true;
  return platforms.some((wish) => matchesPlatform(wish, platform));
}

/** No image of a source is wanted. @param found what it has */
export function noImageFor(
  name: string,
  platforms: readonly PlatformSpec[] | undefined,
  found: readonly (Platform | undefined)[],
): UsageError {
  const names = found.map((platform) => (platform === undefined ? 'unknown' : showPlatform(platform)));
  return new UsageError(`${name}: no image for platform ${(platforms ?? []).map(showPlatform).join(', ')}`, {
    exitCode: 1,
    hint: `the source has ${names.join(', ')}; choose with --platform or --all-platforms`,
  });
}
