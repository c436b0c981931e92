// The commands of `inspect`: each answers with the text a person reads and, where there is one, the JSON form of request
// mode. Source: nydus-image 4.2; golden cli/mistakes.jsonl and inspect.json.
import { toHex, viewOf } from '../../base/bytes.ts';
import { FormatError } from '../../base/errors.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../format/flags.ts';
import { newAttr, type BlobInfo } from '../../format/image.ts';
import { Rafs5Image } from '../../format/rafs5/reader.ts';
import { EXTENDED_SUPER_OFFSET, extendedSuper6 } from '../../format/rafs6/layout.ts';
import { quoted } from './debug-text.ts';
import { blobFeatureNames, superFlagNames } from './flag-names.ts';
import { childFacts, chunksOf, rootFacts, walkFacts, type InodeFacts } from './inode-facts.ts';
import type { ImageFile } from './open-image.ts';

/** What `help` prints. */
export const INSPECT_HELP = `
    stats:              Display RAFS filesystesm metadata
    ls:                 Show files in current directory
    cd DIR:             Change current directory
    stat FILE_NAME:     Show particular information of RAFS file
    blobs:              Show blob table
    prefetch:           Show prefetch table
    chunk OFFSET:       List basic info of a single chunk together with a list of files that share it
    icheck INODE:       Show path of the inode and basic information
    exit:               Exit
        
`;

/** Text for people, and the value that request mode prints as JSON instead; null: the text, then `null`. */
export interface Answer {
  text: string;
  json: unknown;
}

function lines(pairs: readonly (readonly [string, unknown])[], width: number, indent = ''): string {
  return pairs.map(([name, value]) => `${indent}${`${name}:`.padEnd(width)}${String(value)}\n`).join('');
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

function typeSign(mode: number): string {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return '-';
    case S_IFDIR:
      return 'd';
    case S_IFLNK:
      return 'l';
    default:
      return ' ';
  }
}

function isDirectory(facts: InodeFacts): boolean {
  return (facts.mode & S_IFMT) === S_IFDIR;
}

/** One image and the directory one stands in. */
export class Inspector {
  readonly #file: ImageFile;
  /** from the root to the current directory */
  #stack: InodeFacts[];

  constructor(file: ImageFile) {
    this.#file = file;
    this.#stack = [rootFacts(file.image)];
  }

  get #here(): InodeFacts {
    return this.#stack.at(-1) as InodeFacts;
  }

  stats(): Answer {
    const { image } = this.#file;
    const { version, inodesCount, chunkSize, flags } = image.super;
    const pairs: [string, unknown][] = [
      ['Version', version],
      ['Inodes Count', inodesCount],
      ['Chunk Size', `${chunkSize / 1024}KB`],
      ['Root Inode', image.rootIno],
      ['Flags', superFlagNames(flags).join(' | ')],
    ];
    if (image instanceof Rafs5Image) {
      const sb = image.superblock;
      pairs.push(
        ['Blob table offset', hex(sb.blobTableOffset)],
        ['Blob table size', hex(sb.blobTableSize)],
        ['Prefetch table offset', hex(sb.prefetchTableOffset)],
        ['Prefetch table entries', hex(sb.prefetchTableEntries)],
        ['Chunk table offset', hex(0)],
        ['Chunk table size', hex(0)],
      );
    } else {
      const sb = extendedSuper6.read(viewOf(image.bytes), EXTENDED_SUPER_OFFSET);
      pairs.push(
        ['Blob table offset', hex(sb.blobTableOffset)],
        ['Blob table size', hex(sb.blobTableSize)],
        ['Prefetch table offset', hex(sb.prefetchTableOffset)],
        ['Prefetch table entries', hex(sb.prefetchTableSize / 4)],
        ['Chunk table offset', hex(sb.chunkTableOffset)],
        ['Chunk table size', hex(sb.chunkTableSize)],
      );
    }
    return { text: `\n${lines(pairs, 24, '    ')}    \n`, json: { inodes_count: inodesCount } };
  }

  #blobText(blob: BlobInfo): string {
    const digester = { blake3: 'Blake3', sha256: 'Sha256' }[blob.digester];
    const pairs: [string, unknown][] = [
      ['Blob Index', blob.index],
      ['Blob ID', this.#file.blobId(blob)],
      ['Raw Blob ID', blob.id],
      ['Blob Size', blob.compressedSize],
      ['Compressed Data Size', blob.ciCompressedSize > 0 ? blob.ciOffset : blob.compressedSize],
      ['Uncompressed Data Size', blob.uncompressedSize],
      ['Mapped Block Address', blob.mappedBlkaddr],
      ['Features', blobFeatureNames(blob.features).join(' | ')],
      ['Compressor', blob.compressor],
      ['Digester', digester],
      ['Cipher', blob.cipher === 0 ? 'None' : 'Aes128Xts'],
      ['Chunk Size', hex(blob.chunkSize)],
      ['Chunk Count', blob.chunkCount],
      ['Prefetch Table Offset', blob.readaheadOffset],
      ['Prefetch Table Size', blob.readaheadSize],
      ['Meta Compressor', blob.ciCompressor],
      ['Meta Offset', blob.ciOffset],
      ['Meta Compressed Size', blob.ciCompressedSize],
      ['Meta Uncompressed Size', blob.ciUncompressedSize],
      ['ToC Digest', toHex(blob.tocDigest)],
      ['ToC Size', blob.tocSize],
      ['RAFS Blob Digest', toHex(blob.metaDigest)],
      ['RAFS Blob Size', blob.metaSize],
    ];
    return `\n${lines(pairs, 24)}`;
  }

  blobs(): Answer {
    const { blobs } = this.#file.image;
    return {
      text: blobs.map((blob) => this.#blobText(blob)).join(''),
      json: blobs.map((blob) => ({
        blob_id: this.#file.blobId(blob),
        compressed_size: blob.compressedSize,
        decompressed_size: blob.uncompressedSize,
        readahead_offset: blob.readaheadOffset,
        readahead_size: blob.readaheadSize,
      })),
    };
  }

  /** Paths as upstream spells them: v6 knows every hard link, v5 the first and takes all for directories. */
  prefetch(): Answer {
    const { image } = this.#file;
    const inos = image.prefetchInos();
    const wanted = new Map<number, string[]>(inos.map((ino) => [ino, []]));
    if (wanted.size > 0) {
      for (const facts of walkFacts(image)) {
        const paths = wanted.get(facts.ino);
        if (paths === undefined || (image.super.version === 5 && paths.length > 0)) continue;
        const slash = facts.path.length > 1 && (image.super.version === 5 || isDirectory(facts)) ? '/' : '';
        paths.push(facts.path.toString('utf8') + slash);
      }
    }
    const json = inos.map((ino) => ({ inode: ino, path: wanted.get(ino) ?? [] }));
    const rows = json.flatMap(({ inode, path }) =>
      path.map((p) => `Inode Number:${String(inode).padStart(10)} | Path: ${quoted(Buffer.from(p))} \n`),
    );
    return { text: `Total Prefetching Files: ${inos.length}\n${rows.join('')}`, json };
  }

  ls(): Answer {
    const rows = childFacts(this.#file.image, this.#here).map(
      (child) => `${typeSign(child.mode)}    ${String(child.ino).padEnd(8)} ${quoted(child.name)}\n`,
    );
    return { text: rows.join(''), json: null };
  }

  #child(directory: InodeFacts, name: Buffer): InodeFacts | undefined {
    return childFacts(this.#file.image, directory).find((child) => child.name.equals(name));
  }

  cd(path: string): Answer {
    const stack = path.startsWith('/') ? this.#stack.slice(0, 1) : [...this.#stack];
    for (const part of path.split('/')) {
      if (part === '' || part === '.') continue;
      if (part === '..') {
        if (stack.length > 1) stack.pop();
        continue;
      }
      const child = this.#child(stack.at(-1) as InodeFacts, Buffer.from(part));
      if (child === undefined) return { text: `${path} is \n`, json: null };
      if (!isDirectory(child)) return { text: `${path} is not a directory\n`, json: null };
      stack.push(child);
    }
    this.#stack = stack;
    return { text: '', json: null };
  }

  #statText(facts: InodeFacts): string {
    const { image } = this.#file;
    let text = `\n${lines(
      [
        ['Inode Number', facts.ino],
        ['Name', quoted(facts.name)],
        ['Size', facts.size],
        ['Parent', facts.parent],
        ['Mode', `0x${facts.mode.toString(16).toUpperCase()}`],
        ['Permissions', facts.mode.toString(8)],
        ['Nlink', facts.nlink],
        ['UID', facts.uid],
        ['GID', facts.gid],
        ['Mtime', facts.mtime],
        ['MtimeNsec', facts.mtimeNsec],
        ['Blocks', facts.blocks],
      ],
      20,
    )}`;
    if ((facts.mode & S_IFMT) !== S_IFREG) return text;
    text += '  Chunk list:\n';
    let number = 0;
    for (const chunk of chunksOf(image, facts)) {
      text +=
        `        ${number} ->\n` +
        `        file offset: ${chunk.fileOffset}, chunk index: ${chunk.index}\n` +
        `        compressed size: ${chunk.compressedSize}, decompressed size: ${chunk.uncompressedSize}\n` +
        `        compressed offset: ${chunk.compressedOffset}, decompressed offset: ${chunk.uncompressedOffset}\n` +
        `        blob id: ${this.#blobId(chunk.blobIndex)}\n` +
        `        chunk id: ${toHex(chunk.digest)}\n` +
        '    \n';
      number += 1;
    }
    return text;
  }

  #blobId(index: number): string {
    const blob = this.#file.image.blobs[index];
    if (blob === undefined)
      throw new FormatError({ struct: 'chunkRecord', field: 'blobIndex' }, `no blob ${index}`);
    return this.#file.blobId(blob);
  }

  stat(name: string): Answer {
    const child = this.#child(this.#here, Buffer.from(name));
    return { text: child === undefined ? '' : this.#statText(child), json: null };
  }

  /** Every chunk of every file whose stored bytes start at `offset` of its blob. */
  chunk(offset: number): Answer {
    const { image } = this.#file;
    let text = '';
    const seen = new Map<number, string>();
    for (const facts of walkFacts(image)) {
      const slash = facts.path.lastIndexOf(0x2f);
      const parent = facts.path.subarray(0, Math.max(1, slash)).toString('utf8');
      if (isDirectory(facts)) seen.set(facts.ino, facts.path.toString('utf8'));
      for (const chunk of chunksOf(image, facts)) {
        if (chunk.compressedOffset !== offset) continue;
        text +=
          `\nFile: ${facts.name.toString('utf8').padEnd(32)} Parent Path: ${(seen.get(facts.parent) ?? parent).padEnd(32)}\n` +
          `Compressed Offset: ${chunk.compressedOffset}, Compressed Size: ${chunk.compressedSize}\n` +
          `Decompressed Offset: ${chunk.uncompressedOffset}, Decompressed Size: ${chunk.uncompressedSize}\n` +
          `Chunk ID: ${toHex(chunk.digest)},\nBlob ID: ${this.#blobId(chunk.blobIndex)}\n\n`;
      }
    }
    return { text, json: null };
  }

  /** Paths and attributes of an inode; FormatError when there is none. */
  icheck(ino: number): Answer {
    const { image } = this.#file;
    image.attr(ino, newAttr());
    let text = '';
    for (const facts of walkFacts(image)) {
      if (facts.ino !== ino) continue;
      text += `${facts.path.toString('utf8')}\n`;
      if (ino !== image.rootIno) text += this.#statText(facts);
    }
    return { text, json: null };
  }
}
