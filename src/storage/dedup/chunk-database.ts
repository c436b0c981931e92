// Which cache file of this node has a chunk: an SQL database that daemons share, in upstream's tables. It is a hint, never a
// promise: whoever copies a chunk verifies it. So nothing waits for the disk, and a damaged file is moved aside and begun anew.
// Source: blob-and-cache.md 16.9; nydusd.md 16.
import { existsSync, renameSync, statSync } from 'node:fs';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { messageOf, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';

const SCHEMA = `
CREATE TABLE IF NOT EXISTS Blobs (BlobId INTEGER PRIMARY KEY, FilePath TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS Chunks (
  ChunkId TEXT NOT NULL, ChunkOffset INTEGER NOT NULL CHECK (ChunkOffset >= 0), BlobId INTEGER NOT NULL,
  UNIQUE (ChunkId, BlobId) ON CONFLICT IGNORE,
  FOREIGN KEY (BlobId) REFERENCES Blobs (BlobId)
);
CREATE INDEX IF NOT EXISTS ChunkIndex ON Chunks (ChunkId);
CREATE INDEX IF NOT EXISTS ChunkBlobIndex ON Chunks (BlobId);`;

const FIND = `
SELECT FilePath AS path, ChunkOffset AS offset FROM Chunks INDEXED BY ChunkIndex JOIN Blobs USING (BlobId)
WHERE ChunkId = ? AND FilePath <> ? ORDER BY Chunks.BlobId LIMIT 1`;

/** Primary result codes. Source: sqlite.org/rescode.html */
const Code = { busy: 5, locked: 6, corrupt: 11, notADatabase: 26 } as const;
/** How long another writer is waited for; the caller has other work. */
const BUSY_MS = 20;
const CLOSING_BUSY_MS = 1000;
/** Rows of one transaction. */
const BATCH = 512;
/** Rows that may wait to be written; a database that takes none loses what comes beyond. */
const MAX_QUEUED = 200_000;
const RETRY_MS = 200;
/** A database that fails for another reason is left alone for this long. */
const REST_MS = 30_000;

/** Where a chunk stands uncompressed. */
export interface ChunkPlace {
  /** cache file, canonical */
  path: string;
  offset: number;
}

/** A chunk of a cache file. */
export interface ChunkRow {
  /** see `chunkIdOf` */
  id: string;
  offset: number;
}

interface Statements {
  find: StatementSync;
  addBlob: StatementSync;
  blobOf: StatementSync;
  addChunk: StatementSync;
  removeChunk: StatementSync;
  removeChunks: StatementSync;
  removeBlob: StatementSync;
  count: StatementSync;
  paths: StatementSync;
}

interface Opened extends Statements {
  database: DatabaseSync;
  /** the file that was opened: somebody else may have put another in its place */
  inode: number;
}

function codeOf(error: unknown): number {
  const { errcode } = error as { errcode?: unknown };
  return typeof errcode === 'number' ? errcode & 0xff : 0;
}

const isDamage = (error: unknown): boolean => {
  const code = codeOf(error);
  return code === Code.corrupt || code === Code.notADatabase;
};

function openFile(path: string): Opened {
  const { DatabaseSync: Database } = process.getBuiltinModule('node:sqlite');
  const database = new Database(path, { timeout: BUSY_MS });
  try {
    // after a crash of the machine it may be damaged: that is found out, and costs fetching some chunks again
    database.exec('PRAGMA synchronous = OFF; PRAGMA journal_mode = WAL;');
    database.exec(SCHEMA);
    return {
      database,
      inode: statSync(path).ino,
      find: database.prepare(FIND),
      addBlob: database.prepare('INSERT OR IGNORE INTO Blobs (FilePath) VALUES (?)'),
      blobOf: database.prepare('SELECT BlobId AS id FROM Blobs WHERE FilePath = ?'),
      addChunk: database.prepare(
        'INSERT OR IGNORE INTO Chunks (ChunkId, ChunkOffset, BlobId) VALUES (?, ?, ?)',
      ),
      removeChunk: database.prepare(
        'DELETE FROM Chunks WHERE ChunkId = ? AND BlobId = (SELECT BlobId FROM Blobs WHERE FilePath = ?)',
      ),
      removeChunks: database.prepare(
        'DELETE FROM Chunks WHERE BlobId = (SELECT BlobId FROM Blobs WHERE FilePath = ?)',
      ),
      removeBlob: database.prepare('DELETE FROM Blobs WHERE FilePath = ?'),
      count: database.prepare(
        'SELECT count(*) AS n FROM Chunks WHERE BlobId = (SELECT BlobId FROM Blobs WHERE FilePath = ?)',
      ),
      paths: database.prepare('SELECT FilePath AS path FROM Blobs'),
    };
  } catch (error) {
    database.close();
    throw error;
  }
}

/** Handles of files that were replaced. Closing one would take the journal of its successor away. */
const abandoned: DatabaseSync[] = [];

export class ChunkDatabase {
  readonly path: string;
  readonly #logger: Logger;
  #opened: Opened | undefined;
  /** rows by cache file, to be written */
  readonly #queue = new Map<string, ChunkRow[]>();
  #queued = 0;
  #dropped = false;
  #timer: NodeJS.Timeout | undefined;
  /** milliseconds of performance.now() before which it is not used */
  #restUntil = 0;
  readonly #onRebuilt = new Set<() => void>();

  private constructor(path: string, logger: Logger) {
    this.path = path;
    this.#logger = logger;
  }

  /**
   * Open or create a database.
   *
   * @throws UsageError EINVAL  the file cannot be opened or created
   */
  static open(path: string, logger: Logger): ChunkDatabase {
    const self = new ChunkDatabase(path, logger);
    try {
      self.#opened = self.#openOrRebuild();
    } catch (error) {
      throw new UsageError(`cannot open the dedup database ${path}: ${messageOf(error)}`, {
        cause: error,
        exitCode: 1,
        hint: '--dedup-db names a file in a directory that exists and can be written',
      });
    }
    return self;
  }

  /** Be told when the database has begun anew and knows nothing. @returns ends that */
  onRebuilt(listener: () => void): () => void {
    this.#onRebuilt.add(listener);
    return () => void this.#onRebuilt.delete(listener);
  }

  #openOrRebuild(): Opened {
    try {
      return openFile(this.path);
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#moveAside(error);
      return openFile(this.path);
    }
  }

  #moveAside(error: unknown): void {
    const aside = `${this.path}.damaged`;
    this.#logger.warn(
      `dedup database ${this.path} is damaged (${messageOf(error)}); moved to ${aside}, a new one is filled from the caches in use`,
    );
    for (const suffix of ['', '-wal', '-shm'])
      if (existsSync(this.path + suffix)) renameSync(this.path + suffix, aside + suffix);
  }

  /** Do something with the database; undefined when that is not possible now. Never throws. */
  #use<T>(action: (opened: Opened) => T): T | undefined {
    if (performance.now() < this.#restUntil) return undefined;
    try {
      this.#opened ??= this.#openOrRebuild();
      return action(this.#opened);
    } catch (error) {
      const code = codeOf(error);
      if (code === Code.busy || code === Code.locked) return undefined;
      if (isDamage(error)) this.#rebuild(error);
      else {
        this.#restUntil = performance.now() + REST_MS;
        this.#logger.warn(
          `dedup database ${this.path}: ${messageOf(error)}; it is not used for ${REST_MS / 1000} s`,
        );
      }
      return undefined;
    }
  }

  #rebuild(error: unknown): void {
    const before = this.#opened;
    this.#opened = undefined;
    if (before !== undefined) abandoned.push(before.database);
    try {
      // another daemon may have found it first
      if (before === undefined || this.#isCurrent(before)) this.#moveAside(error);
      this.#opened = this.#openOrRebuild();
    } catch (second) {
      this.#restUntil = performance.now() + REST_MS;
      this.#logger.warn(
        `dedup database ${this.path} cannot be begun anew: ${messageOf(second)}; it is not used for ${REST_MS / 1000} s`,
      );
    }
    for (const listener of this.#onRebuilt) listener();
  }

  /** Another daemon found the file damaged and put a new one in its place. */
  #followReplacement(): void {
    if (this.#opened === undefined || this.#isCurrent(this.#opened)) return;
    abandoned.push(this.#opened.database);
    this.#opened = undefined;
    for (const listener of this.#onRebuilt) listener();
  }

  #isCurrent({ inode }: Opened): boolean {
    return statSync(this.path, { throwIfNoEntry: false })?.ino === inode;
  }

  /** Run a transaction. A row that cannot be written takes the whole of it back. */
  #write(action: (opened: Opened) => void): boolean {
    this.#followReplacement();
    const done = this.#use((opened) => {
      opened.database.exec('BEGIN IMMEDIATE');
      try {
        action(opened);
        opened.database.exec('COMMIT');
        return true;
      } catch (error) {
        if (opened.database.isTransaction) opened.database.exec('ROLLBACK');
        throw error;
      }
    });
    return done === true;
  }

  /** A cache file other than `except` that has a chunk, the one that was recorded first. */
  find(id: string, except: string): ChunkPlace | undefined {
    const row = this.#use(({ find }) => find.get(id, except)) as
      { path: unknown; offset: unknown } | undefined;
    if (row === undefined || typeof row.path !== 'string' || !Number.isSafeInteger(row.offset))
      return undefined;
    return { path: row.path, offset: row.offset as number };
  }

  /** Chunks that are recorded of a cache file. */
  count(path: string): number {
    const row = this.#use(({ count }) => count.get(path)) as { n: number } | undefined;
    return row?.n ?? 0;
  }

  /** Record chunks of a cache file, soon: whole batches with pauses between, off the caller's path. */
  add(path: string, rows: readonly ChunkRow[]): void {
    if (rows.length === 0) return;
    if (this.#queued + rows.length > MAX_QUEUED) {
      if (!this.#dropped)
        this.#logger.warn(`dedup database ${this.path} takes no rows: new chunks are not shared`);
      this.#dropped = true;
      return;
    }
    const list = this.#queue.get(path);
    if (list === undefined) this.#queue.set(path, [...rows]);
    else list.push(...rows);
    this.#queued += rows.length;
    this.#plan(0);
  }

  #plan(millis: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const written = this.#writeBatch();
      if (this.#queued > 0) this.#plan(written ? 0 : RETRY_MS);
    }, millis);
    this.#timer.unref();
  }

  /** Write the first rows of the queue. @returns false when they are still there */
  #writeBatch(): boolean {
    const next = this.#queue.entries().next().value;
    if (next === undefined) return true;
    const [path, rows] = next;
    const batch = rows.slice(0, BATCH);
    const written = this.#write(({ addBlob, blobOf, addChunk }) => {
      addBlob.run(path);
      const { id: blob } = blobOf.get(path) as { id: number };
      for (const { id, offset } of batch) addChunk.run(id, offset, blob);
    });
    if (!written) return false;
    this.#dropped = false;
    this.#queued -= batch.length;
    rows.splice(0, batch.length);
    if (rows.length === 0) this.#queue.delete(path);
    return true;
  }

  /** Forget chunks of a cache file, at once: their data is about to go, or was wrong. */
  remove(path: string, ids: readonly string[]): void {
    const gone = new Set(ids);
    const rows = this.#queue.get(path);
    if (rows !== undefined) {
      const left = rows.filter(({ id }) => !gone.has(id));
      this.#queued -= rows.length - left.length;
      if (left.length === 0) this.#queue.delete(path);
      else this.#queue.set(path, left);
    }
    this.#write(({ removeChunk }) => {
      for (const id of gone) removeChunk.run(id, path);
    });
  }

  /** Forget a cache file. */
  removeFile(path: string): void {
    this.#queued -= this.#queue.get(path)?.length ?? 0;
    this.#queue.delete(path);
    this.#write(({ removeChunks, removeBlob }) => {
      removeChunks.run(path);
      removeBlob.run(path);
    });
  }

  /** Forget the cache files that are not there any more. */
  prune(): void {
    const rows = (this.#use(({ paths }) => paths.all()) ?? []) as unknown as ChunkPlace[];
    for (const { path } of rows) if (!existsSync(path)) this.removeFile(path);
  }

  /** Write what is queued, as far as the database takes it, and close. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#queued > 0) {
      this.#use(({ database }) => database.exec(`PRAGMA busy_timeout = ${CLOSING_BUSY_MS}`));
      while (this.#queued > 0 && this.#writeBatch());
    }
    const opened = this.#opened;
    this.#opened = undefined;
    this.#restUntil = Infinity;
    if (opened === undefined) return;
    if (this.#isCurrent(opened)) opened.database.close();
    else abandoned.push(opened.database);
  }
}

const shared = new Map<string, { database: ChunkDatabase; users: number }>();

/** The database that all images of this process share. Give it back with `releaseChunkDatabase`. @throws UsageError */
export function acquireChunkDatabase(path: string, logger: Logger): ChunkDatabase {
  let entry = shared.get(path);
  if (entry === undefined) {
    entry = { database: ChunkDatabase.open(path, logger), users: 0 };
    shared.set(path, entry);
  }
  entry.users++;
  return entry.database;
}

/** End the use of a database; the last user closes it. */
export function releaseChunkDatabase(database: ChunkDatabase): void {
  const entry = shared.get(database.path);
  if (entry?.database !== database || --entry.users > 0) return;
  shared.delete(database.path);
  database.close();
}
