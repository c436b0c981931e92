// Certificates that the environment names, as files for nydusd, which is told them by name. Source: Go crypto/x509
// root_unix.go and OpenSSL SSL_CTX_set_default_verify_paths: SSL_CERT_FILE is a file, SSL_CERT_DIR directories with a colon between.
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { MAX_CONFIG_SIZE } from '../../base/limits.ts';

const PEM = '-----BEGIN CERTIFICATE-----';

/** A certificate is a file, or a link to one, of a size that nydusd takes; keys and READMEs may lie beside it. */
function isCertificate(path: string): boolean {
  try {
    const stat = statSync(path);
    return stat.isFile() && stat.size <= MAX_CONFIG_SIZE && readFileSync(path, 'latin1').includes(PEM);
  } catch {
    return false; // a dangling link, or nothing that we may read
  }
}

/** PEM files that SSL_CERT_FILE and SSL_CERT_DIR name, each once, in a fixed order. What is not there names nothing. */
export function caFiles(env: Readonly<Record<string, string | undefined>>): string[] {
  const { SSL_CERT_FILE: file = '', SSL_CERT_DIR: directories = '' } = env;
  const found = new Set<string>();
  if (file !== '') found.add(resolve(file));
  for (const directory of directories.split(':')) {
    if (directory === '' || !existsSync(directory)) continue;
    for (const name of readdirSync(directory).sort()) {
      const path = join(resolve(directory), name);
      // names by hash are links to the files beside them
      if (isCertificate(path)) found.add(realpathSync(path));
    }
  }
  return [...found];
}
