#!/bin/sh
# Installs what the driver imports. Usage: install.sh <npm> [target], by default /opt/node_modules.
# The versions are those of package.json; none of the packages depends on others but oxc-transform
# on its native library, whose version it pins itself. Runs no scripts of packages.
set -eu
npm=$1
target=${2:-/opt/node_modules}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/package.json" "$work/"
(cd "$work" && "$npm" install --omit=dev --no-package-lock --ignore-scripts --no-audit --no-fund)
rm -rf "$target"
mkdir -p "$(dirname "$target")"
cp -R "$work/node_modules" "$target"
