// The corners of what POSIX and Linux promise to who writes: flags of rename, locks, mappings, rights that a change takes away.
// Each case is a Python script in an empty directory of its own, as it needs system calls that node does not have; it has to print
// what is given beside it. Part of the suite in posix-write-suite.ts.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';

/** Code of the error that a statement ends with; a process of an ordinary user; renameat2(2), which Python does not have. */
const PRELUDE = `
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, stat, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def code(act, *args, **named):
    try: act(*args, **named)
    except OSError as e: return {errno.EOPNOTSUPP: 'EOPNOTSUPP'}.get(e.errno, errno.errorcode[e.errno])
    return 'ok'
def put(name, data=b'', mode=0o644):
    with open(name, 'wb') as f: f.write(data)
    os.chmod(name, mode)
def get(name):
    with open(name, 'rb') as f: return f.read()
def rename2(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) != 0: raise OSError(ctypes.get_errno(), a)
def as_user(act, uid=1234, gid=2345, groups=()):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups(groups); os.setgid(gid); os.setuid(uid)
        os.write(w, str(act()).encode()); os._exit(0)
    os.close(w); os.waitpid(pid, 0)
    with os.fdopen(r) as f: return f.read()
mode = lambda name: oct(os.lstat(name).st_mode & 0o7777)
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
`;

export interface Corner {
  name: string;
  script: string;
  prints: readonly string[];
}

export const CORNERS: readonly Corner[] = [
  {
    name: 'rename: RENAME_EXCHANGE swaps, RENAME_NOREPLACE refuses, together they are wrong',
    script: `
put('a', b'A'); put('b', b'B'); os.mkdir('d'); put('d/in', b'in')
rename2('a', 'b', EXCHANGE)
print(get('a'), get('b'))
rename2('a', 'd', EXCHANGE)
print(os.listdir('a'), get('d'), get('a/in'))
print(code(rename2, 'b', 'd', NOREPLACE), code(rename2, 'b', 'new', NOREPLACE), get('new'))
print(code(rename2, 'new', 'none', EXCHANGE), code(rename2, 'new', 'd', EXCHANGE | NOREPLACE), code(rename2, 'none', 'x', 0))
rename2('d', 'gone', WHITEOUT)
print(stat.S_ISCHR(os.lstat('d').st_mode), os.lstat('d').st_rdev, get('gone'))`,
    prints: ["b'B' b'A'", "['in'] b'B' b'in'", "EEXIST ok b'A'", 'ENOENT EINVAL ENOENT', "True 0 b'B'"],
  },
  {
    name: 'rename: what is open or stood in goes along, what is replaced stays readable',
    script: `
put('old', b'old'); put('new', b'new')
fd = os.open('old', os.O_RDWR)
os.rename('new', 'old')
print(os.pread(fd, 9, 0), get('old'), os.fstat(fd).st_nlink)
os.makedirs('a/b'); os.mkdir('c')
top = os.getcwd(); os.chdir('a/b')
os.rename(top + '/a', top + '/c/moved')
print(os.getcwd()[len(top):], os.path.samefile('..', top + '/c/moved'), os.path.samefile('../..', top + '/c'))
os.chdir(top)
put('one'); os.link('one', 'two'); os.rename('one', 'two')
print(sorted(os.listdir('.')), os.stat('one').st_nlink)
print(code(os.rename, 'one', 'c'), code(os.rename, 'c', 'one'))`,
    prints: ["b'old' b'new' 0", '/c/moved/b True True', "['c', 'old', 'one', 'two'] 2", 'EISDIR ENOTDIR'],
  },
  {
    name: 'O_APPEND: also for pwrite, and when it is set later',
    script: `
put('f', b'0123456789')
fd = os.open('f', os.O_WRONLY | os.O_APPEND)
os.pwrite(fd, b'A', 2); os.write(fd, b'B')
print(get('f'), os.lseek(fd, 0, os.SEEK_CUR))
fd = os.open('f', os.O_RDWR)
os.write(fd, b'x')
fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
os.write(fd, b'C')
fcntl.fcntl(fd, fcntl.F_SETFL, 0)
os.pwrite(fd, b'y', 1)
print(get('f'))`,
    prints: ["b'0123456789AB' 12", "b'xy23456789ABC'"],
  },
  {
    name: 'truncate: nothing of what was cut off comes back, and what cannot be cut says so',
    script: `
put('f', b'x' * 10000); get('f')
os.truncate('f', 5000); os.truncate('f', 9000)
data = get('f')
print(len(data), data[:5000] == b'x' * 5000, data[5000:] == bytes(4000))
fd = os.open('f', os.O_RDWR)
os.ftruncate(fd, 100); os.pwrite(fd, b'end', 8000)
print(get('f')[98:104], os.fstat(fd).st_size)
read_only = os.open('f', os.O_RDONLY); os.mkdir('d')
print(code(os.ftruncate, read_only, 1), code(os.truncate, 'd', 1), code(os.truncate, 'f', -1), code(os.truncate, 'none', 1))
put('l', b'secret'); os.chmod('l', 0o444)
print(as_user(lambda: code(os.truncate, 'l', 1)), get('l'))`,
    prints: [
      '9000 True True',
      "b'xx\\x00\\x00\\x00\\x00' 8003",
      'EINVAL EISDIR EINVAL ENOENT',
      "EACCES b'secret'",
    ],
  },
  {
    name: 'files are as large as the file system behind allows, and no larger',
    script: `
fd = os.open('f', os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b'far away', 6 << 30)
print(os.fstat(fd).st_size, os.pread(fd, 20, 6 << 30), os.pread(fd, 4, 5 << 30), os.fstat(fd).st_blocks < 1000)
print(code(os.pwrite, fd, b'x', 1 << 60), code(os.ftruncate, fd, 1 << 60))
print(os.pread(fd, 1, 1 << 60), code(os.lseek, fd, 1 << 60, os.SEEK_DATA), code(os.lseek, fd, 1 << 60, os.SEEK_HOLE))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
small = os.open('small', os.O_RDWR | os.O_CREAT)
print(os.write(small, b'x' * 6000), code(os.write, small, b'x'), os.fstat(small).st_size)`,
    prints: [
      "6442450952 b'far away' b'\\x00\\x00\\x00\\x00' True",
      'EFBIG EFBIG',
      "b'' ENXIO ENXIO",
      '5000 EFBIG 5000',
    ],
  },
  {
    name: 'set-id bits go when somebody else writes, cuts or the owner changes',
    script: `
os.chmod('.', 0o777)
for name in ('written', 'cut', 'given', 'kept'): put(name, b'12345678', 0o6777)
print(as_user(lambda: code(lambda: os.write(os.open('written', os.O_WRONLY), b'x'))), mode('written'))
print(as_user(lambda: code(os.truncate, 'cut', 2)), mode('cut'))
os.chown('given', 1234, 2345)
print(mode('given'))
os.write(os.open('kept', os.O_WRONLY), b'x')
print(mode('kept'))`,
    prints: ['ok 0o777', 'ok 0o777', '0o777', '0o6777'],
  },
  {
    name: 'owner, group and mode: who may change what',
    script: `
os.chmod('.', 0o777)
put('f'); os.chown('f', 1234, 2345)
print(as_user(lambda: code(os.chown, 'f', 0, -1)), as_user(lambda: code(os.chown, 'f', -1, 77)))
print(as_user(lambda: code(os.chown, 'f', -1, 77), groups=(77,)), os.stat('f').st_gid)
print(as_user(lambda: code(os.chmod, 'f', 0o2755)), mode('f'))
print(as_user(lambda: code(os.chmod, 'f', 0o600), uid=99), as_user(lambda: code(os.utime, 'f', (1, 1)), uid=99))
os.symlink('f', 'link'); os.lchown('link', 55, 66)
print(os.lstat('link').st_uid, os.lstat('link').st_gid, os.stat('link').st_uid)
os.mkdir('shared'); os.chown('shared', 0, 77); os.chmod('shared', 0o770)
print(as_user(lambda: code(put, 'shared/x')), as_user(lambda: code(put, 'shared/x'), groups=(77,)))`,
    prints: ['EPERM EPERM', 'ok 77', 'ok 0o755', 'EPERM EPERM', '55 66 1234', 'EACCES ok'],
  },
  {
    name: 'umask: bits are taken from what is made, not from what is changed',
    script: `
os.umask(0o027)
os.close(os.open('f', os.O_CREAT, 0o777)); os.mkdir('d', 0o1777); os.mkfifo('p', 0o666)
os.mknod('n', stat.S_IFREG | 0o640)
print(mode('f'), mode('d'), mode('p'), mode('n'))
os.chmod('f', 0o777)
print(mode('f'))`,
    prints: ['0o750 0o1750 0o640 0o640', '0o777'],
  },
  {
    name: 'times: left alone, set to now, moved by what changes the file or its directory',
    script: `
put('f'); os.utime('f', ns=(10**9, 2 * 10**9))
class spec(ctypes.Structure): _fields_ = [('s', ctypes.c_long), ('n', ctypes.c_long)]
NOW, OMIT = 0x3fffffff, 0x3ffffffe
def utimens(name, a, m):
    if libc.utimensat(-100, name.encode(), (spec * 2)(a, m), 0) != 0: raise OSError(ctypes.get_errno(), name)
utimens('f', spec(0, OMIT), spec(77, 5))
print(os.stat('f').st_atime_ns, os.stat('f').st_mtime_ns)
utimens('f', spec(0, NOW), spec(0, OMIT))
print(abs(os.stat('f').st_atime - time.time()) < 60, os.stat('f').st_mtime_ns)
os.chmod('f', 0o666); os.chmod('.', 0o777)
print(as_user(lambda: code(utimens, 'f', spec(0, NOW), spec(0, NOW))), as_user(lambda: code(utimens, 'f', spec(1, 0), spec(1, 0))))
def moved(what, act, name='f'):
    before = getattr(os.stat(name), what); time.sleep(0.02); act(); return getattr(os.stat(name), what) > before
print([moved('st_ctime_ns', act) for act in (lambda: os.chmod('f', 0o600), lambda: os.link('f', 'g'), lambda: os.unlink('g'),
  lambda: os.rename('f', 'h') or os.rename('h', 'f'), lambda: os.setxattr('f', 'user.x', b'1'), lambda: os.truncate('f', 3))])
os.mkdir('d')
print([moved('st_mtime_ns', act, 'd') for act in (lambda: put('d/x'), lambda: os.rename('d/x', 'd/y'), lambda: os.unlink('d/y'), lambda: os.mkdir('d/z'))])
print(moved('st_mtime_ns', lambda: os.truncate('f', 1)), os.stat('d').st_nlink)`,
    prints: [
      '1000000000 77000000005',
      'True 77000000005',
      'ok EPERM',
      '[True, True, True, True, True, True]',
      '[True, True, True, True]',
      'True 3',
    ],
  },
  {
    name: 'extended attributes: create, replace, sizes, and whose they are',
    script: `
put('f'); os.chmod('.', 0o777)
os.setxattr('f', 'user.a', b'1', os.XATTR_CREATE)
print(code(os.setxattr, 'f', 'user.a', b'2', os.XATTR_CREATE), code(os.setxattr, 'f', 'user.b', b'2', os.XATTR_REPLACE))
os.setxattr('f', 'user.a', b'22', os.XATTR_REPLACE); os.setxattr('f', 'user.empty', b''); os.setxattr('f', 'trusted.t', bytes(range(256)))
print(sorted(os.listxattr('f')), os.getxattr('f', 'user.a'), os.getxattr('f', 'user.empty'), os.getxattr('f', 'trusted.t') == bytes(range(256)))
small = ctypes.create_string_buffer(1)
print(libc.getxattr(b'f', b'user.a', None, 0), libc.getxattr(b'f', b'user.a', small, 1), errno.errorcode[ctypes.get_errno()])
print(libc.listxattr(b'f', small, 1), errno.errorcode[ctypes.get_errno()])
print(code(os.getxattr, 'f', 'user.none'), code(os.removexattr, 'f', 'user.none'), code(os.setxattr, 'f', 'nonsense', b''))
print(as_user(lambda: code(os.setxattr, 'f', 'user.a', b'3')), as_user(lambda: code(os.setxattr, 'f', 'trusted.t', b'3')))
print(as_user(lambda: sorted(n for n in os.listxattr('f') if n.startswith('user.'))), as_user(lambda: os.getxattr('f', 'user.a')))
os.symlink('f', 'link'); os.mkdir('d'); os.setxattr('d', 'user.dir', b'd')
print(code(os.setxattr, 'link', 'user.x', b'', follow_symlinks=False), os.listxattr('link', follow_symlinks=False), os.listxattr('d'))`,
    prints: [
      'EEXIST ENODATA',
      "['trusted.t', 'user.a', 'user.empty'] b'22' b'' True",
      '2 -1 ERANGE',
      '-1 ERANGE',
      'ENODATA ENODATA EOPNOTSUPP',
      'EACCES EPERM',
      "['user.a', 'user.empty'] b'22'",
      "EPERM [] ['user.dir']",
    ],
  },
  {
    name: 'locks: ranges, shared and exclusive, waited for, gone with their owner',
    script: `
put('f', b'x' * 100)
other = '''
import fcntl, os, sys
fd = os.open("f", os.O_RDWR)
def can(how, length, start):
    try: fcntl.lockf(fd, how | fcntl.LOCK_NB, length, start)
    except OSError: return 0
    return 1
print(can(fcntl.LOCK_EX, 10, 0), can(fcntl.LOCK_EX, 10, 20), can(fcntl.LOCK_SH, 10, 40), can(fcntl.LOCK_EX, 10, 40), flush=True)'''
fd = os.open('f', os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0); fcntl.lockf(fd, fcntl.LOCK_SH, 10, 40)
print(subprocess.run([sys.executable, '-c', other], capture_output=True, text=True).stdout.strip())
holder = subprocess.Popen([sys.executable, '-c', other + '\\nfcntl.lockf(fd, fcntl.LOCK_EX, 5, 60)\\nprint("held", flush=True)\\nsys.stdin.read()'],
  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
holder.stdout.readline(); holder.stdout.readline()
asked = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 60, 5, 0)
kind, _, start, length, pid = struct.unpack('hhqqi4x', fcntl.fcntl(fd, fcntl.F_GETLK, asked))
print(kind == fcntl.F_WRLCK, start, length, pid == holder.pid)
killer = os.fork()
if killer == 0:
    time.sleep(0.1); os.kill(holder.pid, signal.SIGKILL); os._exit(0)
fcntl.lockf(fd, fcntl.LOCK_EX, 5, 60)
print('got it', holder.wait()); os.waitpid(killer, 0)
a = os.open('f', os.O_RDWR); b = os.open('f', os.O_RDWR)
fcntl.flock(a, fcntl.LOCK_SH); fcntl.flock(b, fcntl.LOCK_SH)
print(code(fcntl.flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB))
os.close(b)
print(code(fcntl.flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB))
OFD_SETLK = 37
whole = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 70, 1, 0)
c = os.open('f', os.O_RDWR)
print(code(fcntl.fcntl, a, OFD_SETLK, whole), code(fcntl.fcntl, c, OFD_SETLK, whole))`,
    prints: ['0 1 1 0', 'True 60 5 True', 'got it -9', 'EAGAIN', 'ok', 'ok EAGAIN'],
  },
  {
    name: 'space: kept sizes, zeroed ranges, what FUSE does not know is refused',
    script: `
KEEP, PUNCH, COLLAPSE, ZERO = 1, 2, 8, 16
def fallocate(fd, how, at, size):
    if libc.fallocate(fd, how, ctypes.c_long(at), ctypes.c_long(size)) != 0: raise OSError(ctypes.get_errno(), 'fallocate')
fd = os.open('f', os.O_RDWR | os.O_CREAT)
os.write(fd, b'x' * 20000)
fallocate(fd, KEEP, 0, 1 << 20)
print(os.fstat(fd).st_size, os.fstat(fd).st_blocks >= 2048)
fallocate(fd, ZERO, 100, 50)
print(os.pread(fd, 3, 98), os.pread(fd, 3, 148), os.fstat(fd).st_size)
fallocate(fd, PUNCH | KEEP, 4096, 4096)
print(os.pread(fd, 4096, 4096) == bytes(4096), os.pread(fd, 1, 8192))
print(code(fallocate, fd, PUNCH, 0, 10), code(fallocate, os.open('f', os.O_RDONLY), 0, 0, 10), code(fallocate, fd, 0, 0, 0), code(fallocate, fd, 0, -1, 5))
os.posix_fallocate(fd, 0, 30000)
print(os.fstat(fd).st_size)`,
    prints: [
      '20000 True',
      "b'xx\\x00' b'\\x00\\x00x' 20000",
      "True b'x'",
      'EOPNOTSUPP EBADF EINVAL EINVAL',
      '30000',
    ],
  },
  {
    name: 'mappings: shared ones are seen by readers and by other mappings, private ones by nobody',
    script: `
put('f', b'.' * 12000)
fd = os.open('f', os.O_RDWR)
m = mmap.mmap(fd, 12000)
os.pwrite(fd, b'written', 100)
print(m[100:107])
m[5000:5006] = b'mapped'
print(os.pread(fd, 6, 5000))
n = mmap.mmap(os.open('f', os.O_RDWR), 12000)
print(n[5000:5006])
n[9000:9003] = b'two'
print(m[9000:9003])
private = mmap.mmap(fd, 12000, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
private[0:4] = b'mine'
print(get('f')[:4], private[:4])
os.unlink('f'); os.close(fd)
m[11990:11994] = b'tail'; m.flush()
print(n[11990:11994])
n.close(); m.close()
put('g', b'y' * 8192)
g = os.open('g', os.O_RDWR); k = mmap.mmap(g, 8192); k[8191]
os.ftruncate(g, 10)
pid = os.fork()
if pid == 0: k[8000]; os._exit(0)
print(os.waitpid(pid, 0)[1] == signal.SIGBUS, k[9:12])
k[5:8] = b'END'; del k; os.close(g)
print(get('g'))`,
    prints: [
      "b'written'",
      "b'mapped'",
      "b'mapped'",
      "b'two'",
      "b'....' b'mine'",
      "b'tail'",
      "True b'y\\x00\\x00'",
      "b'yyyyyENDyy'",
    ],
  },
  {
    name: 'listings: places are kept, what is removed meanwhile disturbs nobody',
    script: `
for n in range(1500): os.close(os.open('entry-number-%05d' % n, os.O_CREAT))
libc.opendir.restype = ctypes.c_void_p; libc.readdir.restype = ctypes.c_void_p; libc.telldir.restype = ctypes.c_long
dirp = ctypes.c_void_p(libc.opendir(b'.'))
def names(count):
    out = []
    while len(out) < count:
        at = libc.readdir(dirp)
        if not at: break
        name = ctypes.string_at(at + 19)
        if not name.startswith(b'.'): out.append(name)
    return out
first = names(600); place = libc.telldir(dirp); next100 = names(100)
rest = names(10000)
print(len(first), len(set(first + next100 + rest)))
libc.seekdir(dirp, ctypes.c_long(place))
print(names(100) == next100)
libc.rewinddir(dirp)
print(names(600) == first)
libc.rewinddir(dirp)
removed = 0
while True:
    batch = names(400)
    if not batch: break
    for name in batch: os.unlink(name); removed += 1
print(removed, os.listdir('.'))
os.mkdir('d'); fd = os.open('d', os.O_RDONLY)
os.rmdir('d')
print(os.listdir(fd), code(os.open, 'x', os.O_CREAT, dir_fd=fd), code(os.stat, 'd'))
put('r'); os.symlink('r', 'l'); os.mkfifo('p'); os.mkdir('s'); socket.socket(socket.AF_UNIX).bind('u')
with os.scandir('.') as it: print(sorted((e.name, e.is_file(follow_symlinks=False), e.is_symlink(), e.is_dir(follow_symlinks=False)) for e in it))`,
    prints: [
      '600 1500',
      'True',
      'True',
      '1500 []',
      '[] ENOENT ENOENT',
      "[('l', False, True, False), ('p', False, False, False), ('r', True, False, False), ('s', False, False, True), ('u', False, False, False)]",
    ],
  },
  {
    name: 'open: links that may not be followed, directories, O_DIRECT, O_EXCL',
    script: `
put('f', b'x' * 8192); os.symlink('f', 'l'); os.symlink('target', 'dangling'); os.mkdir('d')
print(code(os.open, 'l', os.O_RDONLY | os.O_NOFOLLOW), code(os.open, 'f', os.O_DIRECTORY), code(os.open, 'd', os.O_WRONLY), code(os.open, 'd', os.O_CREAT | os.O_RDWR))
print(code(os.open, 'dangling', os.O_CREAT | os.O_EXCL), code(os.open, 'dangling', os.O_CREAT), os.listdir('.').count('target'))
print(code(os.open, 'l', os.O_CREAT | os.O_EXCL), code(os.open, '', os.O_RDONLY), code(os.open, 'f/', os.O_RDONLY))
page = mmap.mmap(-1, 4096); page.write(b'D' * 4096)
fd = os.open('f', os.O_RDWR | os.O_DIRECT)
print(os.pwrite(fd, page, 4096), os.preadv(fd, [page], 0), page[:2], get('f')[4094:4098])
fd = os.open('f', os.O_WRONLY | os.O_DSYNC)
print(os.write(fd, b'synced'), code(os.pread, fd, 1, 0))
fd = os.open('f', os.O_PATH)
print(os.fstat(fd).st_size, code(os.pread, fd, 1, 0))
fd = os.open('.', os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
print(code(os.link, '/proc/self/fd/%d' % fd, 'named', src_dir_fd=0, follow_symlinks=True), os.fstat(fd).st_nlink)`,
    prints: [
      'ELOOP ENOTDIR EISDIR EISDIR',
      'EEXIST ok 1',
      'EEXIST ENOENT ENOTDIR',
      "4096 4096 b'xx' b'xxDD'",
      '6 EBADF',
      '8192 EBADF',
      'ENOENT 0',
    ],
  },
  {
    name: 'links: of symlinks themselves, and what may be linked',
    script: `
os.symlink('somewhere', 'l'); os.link('l', 'l2', follow_symlinks=False)
print(os.readlink('l2'), os.lstat('l').st_nlink, os.path.samestat(os.lstat('l'), os.lstat('l2')))
put('f', b'1'); fd = os.open('f', os.O_RDWR); os.link('f', 'g'); os.unlink('f')
os.pwrite(fd, b'2', 0); os.fchmod(fd, 0o604); os.fchown(fd, 7, 8)
print(get('g'), mode('g'), os.stat('g').st_uid, os.stat('g').st_nlink)
os.unlink('g'); os.ftruncate(fd, 5)
print(os.fstat(fd).st_nlink, os.fstat(fd).st_size, code(os.link, '/proc/self/fd/%d' % fd, 'h', src_dir_fd=0, follow_symlinks=True))
os.mkfifo('p'); os.link('p', 'p2')
print(os.stat('p2').st_nlink, code(os.symlink, 'x', 'l'), code(os.symlink, '', 'e'), code(os.symlink, 'x' * 5000, 'e'))`,
    prints: ['somewhere 2 True', "b'2' 0o604 7 1", '0 5 ENOENT', '2 EEXIST ENOENT ENAMETOOLONG'],
  },
  {
    name: 'sockets connect, pages are spliced, files are sent',
    script: `
server = socket.socket(socket.AF_UNIX); server.bind('s'); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect('s')
peer, _ = server.accept(); client.sendall(b'hello'); print(peer.recv(9), stat.S_ISSOCK(os.stat('s').st_mode))
put('f', os.urandom(1) * 300000)
a, b = socket.socketpair(); fd = os.open('f', os.O_RDONLY)
print(os.sendfile(a.fileno(), fd, 1000, 5000), a.close(), b.recv(5000, socket.MSG_WAITALL) == get('f')[:5000])
r, w = os.pipe(); to = os.open('to', os.O_RDWR | os.O_CREAT)
print(os.splice(fd, w, 4096, offset_src=8192), os.splice(r, to, 4096, offset_dst=10), os.fstat(to).st_size, get('to')[10:] == get('f')[:4096])`,
    prints: ["b'hello' True", '5000 None True', '4096 4096 4106 True'],
  },
];

/** Run one of them in a directory. */
export function runCorner(corner: Corner, dir: string): void {
  const { stdout, stderr } = spawnSync('python3', ['-c', PRELUDE + corner.script], {
    cwd: dir,
    encoding: 'utf8',
  });
  assert.deepEqual(stdout.trimEnd().split('\n'), corner.prints, stderr);
  assert.equal(stderr, '');
}
