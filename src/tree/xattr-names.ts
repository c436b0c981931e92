// Which extended attributes an image may hold. Source: rafs-metadata.md 2.8.
import { UsageError } from '../base/errors.ts';
import { MAX_XATTR_NAME, MAX_XATTR_VALUE_V5, MAX_XATTR_VALUE_V6 } from '../base/limits.ts';

const PREFIXES = ['user.', 'security.', 'trusted.', 'system.posix_acl_access', 'system.posix_acl_default'];

/**
 * Let an xattr pass or refuse it.
 *
 * @param name full name, latin1 of the raw bytes
 * @param path whose attribute it is, for the message
 * @throws UsageError exit 1, the prefix is not one an image can hold, or name or value is too long
 */
export function admitXattr(name: string, valueSize: number, version: 5 | 6, path: string): void {
  if (!PREFIXES.some((prefix) => name.startsWith(prefix))) {
    throw new UsageError(
      `invalid xattr key: "${name}" of "${path}" has none of the prefixes ${PREFIXES.join(', ')}`,
      {
        exitCode: 1,
        hint: 'remove the attribute from the source',
      },
    );
  }
  if (name.length > MAX_XATTR_NAME) {
    throw new UsageError(`xattr name of "${path}" has ${name.length} bytes, limit ${MAX_XATTR_NAME}`, {
      exitCode: 1,
    });
  }
  const limit = version === 5 ? MAX_XATTR_VALUE_V5 : MAX_XATTR_VALUE_V6;
  if (valueSize > limit) {
    throw new UsageError(`xattr "${name}" of "${path}" has ${valueSize} bytes, limit ${limit}`, {
      exitCode: 1,
    });
  }
}
