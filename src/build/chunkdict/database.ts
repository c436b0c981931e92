// The SQLite database of a dictionary: what images have, for this run and for those who look at it later.
// Source: nydus-image-and-nydusify.md 5.5 (tables); golden chunkdict-generate-* (schema, values).
import type { DatabaseSync } from 'node:sqlite';
import { isAbsolute } from 'node:path';
import { toHex } from '../../base/bytes.ts';
import { UsageError, messageOf } from '../../base/errors.ts';
import type { DictionarySource } from './rows.ts';

const SCHEME = 'sqlite://';

const SCHEMA = `
CREATE TABLE IF NOT EXISTS chunk (
  id INTEGER PRIMARY KEY, image_reference TEXT, version TEXT, chunk_blob_id TEXT NOT NULL, chunk_digest TEXT,
  chunk_crc32 INT, chunk_compressed_size INT, chunk_uncompressed_size INT, chunk_compressed_offset INT,
  chunk_uncompressed_offset INT);
CREATE TABLE IF NOT EXISTS blob (
  id INTEGER PRIMARY KEY, blob_id TEXT NOT NULL, blob_compressed_size INT, blob_uncompressed_size INT,
  blob_compressor TEXT, blob_meta_ci_compressed_size INT, blob_meta_ci_uncompressed_size INT, blob_meta_ci_offset INT);
`;

/** File of a database URL, or `:memory:`. @throws UsageError exit 1, in upstream's words */
export function databasePath(url: string): string {
  const colon = url.indexOf('://');
  if (colon < 0) throw new UsageError(`Invalid database URL: ${url}`, { exitCode: 1 });
  if (!url.startsWith(SCHEME))
    throw new UsageError(
      `Unsupported database type: ${url}, please use a valid database URI, such as 'sqlite:///path/to/chunkdict.db'.`,
      { exitCode: 1 },
    );
  const path = url.slice(SCHEME.length);
  if (path !== ':memory:' && !isAbsolute(path))
    throw new UsageError(`Invalid database URL: ${url}`, { exitCode: 1, hint: 'name an absolute path' });
  return path;
}

function insertSource(database: DatabaseSync, source: DictionarySource): void {
  // a run over the same version again says it anew
  database
    .prepare('DELETE FROM chunk WHERE image_reference = ? AND version = ?')
    .run(source.reference, source.version);
  const chunk = database.prepare(
    'INSERT INTO chunk (image_reference, version, chunk_blob_id, chunk_digest, chunk_crc32, chunk_compressed_size, chunk_uncompressed_size, chunk_compressed_offset, chunk_uncompressed_offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
  );
  for (const c of source.chunks) {
    chunk.run(
      source.reference,
      source.version,
      source.blobs[c.blobIndex]?.id ?? '',
      toHex(c.digest),
      c.crc32,
      c.compressedSize,
      c.uncompressedSize,
      c.compressedOffset,
      c.uncompressedOffset,
    );
  }
  const blob = database.prepare(
    'INSERT INTO blob (blob_id, blob_compressed_size, blob_uncompressed_size, blob_compressor, blob_meta_ci_compressed_size, blob_meta_ci_uncompressed_size, blob_meta_ci_offset) SELECT ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM blob WHERE blob_id = ?)',
  );
  for (const b of source.blobs) {
    blob.run(
      b.id,
      b.compressedSize,
      b.uncompressedSize,
      b.compressor,
      b.ciCompressedSize,
      b.ciUncompressedSize,
      b.ciOffset,
      b.id,
    );
  }
}

/**
 * Write the rows of images, all of them or none.
 *
 * @throws UsageError exit 1  the database cannot be used
 */
export function saveSources(url: string, sources: readonly DictionarySource[]): void {
  const path = databasePath(url);
  const sqlite = process.getBuiltinModule('node:sqlite');
  let database: DatabaseSync | undefined;
  try {
    database = new sqlite.DatabaseSync(path);
    database.exec(SCHEMA);
    database.exec('BEGIN IMMEDIATE');
    for (const source of sources) insertSource(database, source);
    database.exec('COMMIT');
  } catch (error) {
    throw new UsageError(`cannot use database ${path}: ${messageOf(error)}`, { exitCode: 1, cause: error });
  } finally {
    database?.close();
  }
}
