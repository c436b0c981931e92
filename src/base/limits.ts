// Named limits that bytes from outside must meet before anything is allocated.
// Each says where it comes from and what it stops. docs/limits.md lists them for operators.

export const KIB = 1024;
export const MIB = 1024 * 1024;
export const GIB = 1024 * 1024 * 1024;

/** Smallest and largest chunk size of an image (blob-and-cache 1.2). */
export const MIN_CHUNK_SIZE = 0x1000;
export const MAX_CHUNK_SIZE = 0x100_0000;
export const DEFAULT_CHUNK_SIZE = 0x10_0000;

/** Chunks of one blob: readers accept up to this many (blob-and-cache 1.2). */
export const MAX_CHUNKS_PER_BLOB = 0x100_0000;
/** Highest chunk count that a writer hands out (blob-and-cache 1.2). */
export const MAX_WRITTEN_CHUNKS = 0xff_ffff;

/** Blob sizes (rafs-metadata 5.8). */
export const MAX_BLOB_UNCOMPRESSED = 2 ** 44;
export const MAX_BLOB_COMPRESSED = 2 ** 40;

/** Blobs of one image (rafs-metadata 5.8). */
export const MAX_BLOBS_V6 = 254;
export const MAX_BLOBS_V5 = 256;

/** A bootstrap larger than this is refused: v5 records are addressed below 4 GiB, mapped mode stops at 2 GiB. */
export const MAX_BOOTSTRAP_V5 = 0x8000_0000;
export const MAX_BOOTSTRAP_V6 = 64 * GIB;

export const MAX_NAME = 255;
export const MAX_SYMLINK_V5 = 65535;
export const MAX_SYMLINK_V6 = 4096;
export const MAX_XATTR_NAME = 255;
export const MAX_XATTR_VALUE_V5 = 65536;
export const MAX_XATTR_VALUE_V6 = 65535;

/** Deepest directory nesting that a walk follows; stops a hostile image from exhausting the stack. */
export const MAX_TREE_DEPTH = 4096;

/** Table of contents including its tar header (blob-and-cache 6.5). */
export const MAX_TOC_SIZE = 65536;
export const MIN_TOC_SIZE = 512;

/** Plain size of one batch, and output of one zran context (blob-and-cache 8.5, 9.4). */
export const MAX_BATCH_PLAIN = 16 * MIB;

/** Configuration text (nydusd 7). */
export const MAX_CONFIG_SIZE = MIB;

/** Smallest size budget of a cache directory: a few chunks of the largest size should fit. */
export const MIN_CACHE_SIZE = MIB;

/** Layers of one merge (rafs-metadata 5.8). */
export const MAX_LAYERS = 65535;

/** Body of one pax header of a tar: holds every xattr of a file; 64 values of the largest size. */
export const MAX_TAR_PAX = 4 * MIB;
/** GNU long name or long link of a tar: longer than any path the kernel takes. */
export const MAX_TAR_LONG_NAME = 128 * KIB;
/** One name in a tar: upstream writes 256 bytes too, longer ones fit no format (golden tarforms/name-256-bytes). */
export const MAX_TAR_NAME = 256;

/** Highest RLIMIT_NOFILE the daemon asks for (nydusd 2.1). */
export const MAX_NOFILE = 1_000_000;

/** One manifest or index of a registry: what registries accept (OCI distribution spec 1.1, "Pushing Manifests"). */
export const MAX_MANIFEST_SIZE = 4 * MIB;
/** Token answers, error lists, tag lists and pages of referrers of a registry. */
export const MAX_REGISTRY_JSON = 4 * MIB;
/** Body of an error answer that is looked at. */
export const MAX_ERROR_BODY = 16 * KIB;
/** Redirects that are followed for one request to a registry. */
export const MAX_REDIRECTS = 5;
/** Pages of a list that a registry may answer. */
export const MAX_LIST_PAGES = 1000;
