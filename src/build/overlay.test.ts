import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TreeNode } from '../tree/node.ts';
import { sampleOf, sampleRemoval, sampleTree, type Sample } from '../tree/tree-samples.ts';
import type { WhiteoutConvention } from '../tree/whiteouts.ts';
import { overlay } from './overlay.ts';

function merged(lower: Sample, upper: Sample, convention: WhiteoutConvention): unknown {
  return sampleOf(overlay(sampleTree(lower), sampleTree(upper), convention));
}

/** A directory with the opaque mark of overlayfs. */
function opaque(sample: Sample, value = 'y'): TreeNode {
  return { ...sampleTree(sample), xattrs: new Map([['trusted.overlay.opaque', Buffer.from(value)]]) };
}

const base = { bin: { sh: 'old', ls: 'ls' }, etc: { passwd: 'p' }, file: 'f', dir: { a: '1', b: '2' } };

const cases: [string, WhiteoutConvention, Sample, Sample, unknown][] = [
  [
    'upper files replace and add',
    'oci',
    base,
    { bin: { sh: 'new' }, add: 'x' },
    { ...base, bin: { ls: 'ls', sh: 'new' }, add: 'x' },
  ],
  ['a file replaces a directory', 'oci', base, { dir: 'now a file' }, { ...base, dir: 'now a file' }],
  ['a directory replaces a file', 'oci', base, { file: { x: 'y' } }, { ...base, file: { x: 'y' } }],
  [
    'OCI removal',
    'oci',
    base,
    { bin: { '.wh.sh': '' }, '.wh.etc': '' },
    { bin: { ls: 'ls' }, file: 'f', dir: { a: '1', b: '2' } },
  ],
  ['OCI removal of something absent', 'oci', base, { '.wh.nothing': '' }, base],
  ['OCI opaque', 'oci', base, { dir: { '.wh..wh..opq': '', c: '3' } }, { ...base, dir: { c: '3' } }],
  [
    'markers do not touch their own layer',
    'oci',
    base,
    { '.wh.dir': '', dir: { n: 'new' } },
    { ...base, dir: { n: 'new' } },
  ],
  [
    'markers are consumed where only the upper layer has the directory',
    'oci',
    base,
    { n: { '.wh.x': '', y: 'y' } },
    { ...base, n: { y: 'y' } },
  ],
  ['.wh..wh.plnk removes .wh.plnk', 'oci', { ...base }, { '.wh..wh.plnk': '' }, base],
  [
    'entries of the lower layer are no markers',
    'oci',
    { '.wh.x': '', x: 'x' },
    { n: '' },
    { '.wh.x': '', x: 'x', n: '' },
  ],
  [
    'overlayfs removal',
    'overlayfs',
    base,
    { etc: sampleRemoval('etc') },
    { bin: base.bin, file: 'f', dir: base.dir },
  ],
  [
    'overlayfs opaque keeps only upper children',
    'overlayfs',
    base,
    { dir: opaque({ c: '3' }) },
    { ...base, dir: { c: '3' } },
  ],
  [
    'another value of the opaque xattr means nothing',
    'overlayfs',
    base,
    { dir: opaque({ c: '3' }, 'x') },
    { ...base, dir: { a: '1', b: '2', c: '3' } },
  ],
  [
    'OCI names mean nothing to overlayfs',
    'overlayfs',
    base,
    { '.wh.etc': 'kept' },
    { ...base, '.wh.etc': 'kept' },
  ],
  [
    'overlayfs devices mean nothing to OCI',
    'oci',
    base,
    { etc: sampleRemoval('etc') },
    { ...base, etc: '20600' },
  ],
  [
    'none keeps all markers',
    'none',
    base,
    { '.wh.etc': '', dir: { '.wh..wh..opq': '' } },
    { ...base, '.wh.etc': '', dir: { a: '1', b: '2', '.wh..wh..opq': '' } },
  ],
];
for (const [name, convention, lower, upper, expected] of cases) {
  test(`overlay: ${name}`, () => assert.deepEqual(merged(lower, upper, convention), expected));
}

test('overlay: children stay sorted and upper directories give the attributes', () => {
  const lower = sampleTree({ b: { x: '' }, d: '', f: '' });
  const upper = sampleTree({ a: '', b: { y: '' }, c: '', g: '' });
  Object.assign(upper, { mode: 0o040700, mtime: 5 });
  Object.assign(upper.children?.[1] as TreeNode, { uid: 7, xattrs: new Map([['user.k', Buffer.from('v')]]) });
  const root = overlay(lower, upper, 'oci');
  assert.deepEqual(
    root.children?.map(({ name }) => name.toString()),
    ['a', 'b', 'c', 'd', 'f', 'g'],
  );
  assert.deepEqual(
    [root.mode, root.mtime, root.children?.[1]?.uid, root.children?.[1]?.xattrs?.size],
    [0o040700, 5, 7, 1],
  );
});

test('overlay: the opaque mark leaves the directory, other xattrs stay', () => {
  const dir = opaque({ c: '3' });
  dir.xattrs?.set('user.k', Buffer.from('v'));
  dir.dirSize5 = 4096;
  const root = overlay(sampleTree(base), sampleTree({ dir }), 'overlayfs');
  const result = root.children?.find(({ name }) => name.toString() === 'dir');
  assert.deepEqual([...(result?.xattrs ?? [])], [['user.k', Buffer.from('v')]]);
  // 4096 bytes and two pairs of 28 and 12 bytes
  assert.equal(result?.blocks5, 9);
});
