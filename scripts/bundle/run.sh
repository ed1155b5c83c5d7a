#!/bin/sh
# Builds gmml on this machine against the torch of its python3 (or LIBTORCH), and tests and measures it. Nothing is downloaded.
#   ./run.sh [--out FOLDER] [--seconds N] [--device cuda|cpu] [PART ...]      ./run.sh --help
# Unpacks beside itself, or into GMML_BUNDLE_WORK.
set -eu
GMML_RUN_STARTED=$(date +%s)
export GMML_RUN_STARTED
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
work=${GMML_BUNDLE_WORK:-$here/work}

# The machine has python3, since torch is in it; xz it may lack.
unpack() {
  if command -v xz >/dev/null 2>&1; then
    xz -dc "$1"
  else
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"
  fi
}

if ! cmp -s "$here/bundle.json" "$work/bundle.json"; then
  rm -rf "$work"
  mkdir -p "$work/bin"
  unpack "$here/node.xz" >"$work/bin/node"
  chmod +x "$work/bin/node"
  unpack "$here/gmml.tar.xz" >"$work/gmml.tar"
  tar -xf "$work/gmml.tar" -C "$work"
  rm "$work/gmml.tar"
  # Last: a folder with this file is complete.
  cp "$here/bundle.json" "$work/bundle.json"
fi

PATH=$work/bin:$PATH
export PATH
exec node "$work/gmml/scripts/bundle/parts.mjs" "$@"
