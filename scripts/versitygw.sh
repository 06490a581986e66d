#!/usr/bin/env bash
# Installs versitygw, an S3 server that checks signatures, into .venv/bin for the tests of the
# object store. Needs Go; without it those tests skip, and say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VERSION=v1.8.0
program=.venv/bin/versitygw
stamp=.venv/versitygw-$VERSION
[[ -x $program && -e $stamp ]] && exit 0

export PATH="$PATH:/usr/local/go/bin"
if ! command -v go >/dev/null; then
  echo "== no Go: tests of the object store over S3 will be skipped"
  exit 0
fi
echo "== installing versitygw $VERSION"
if GOBIN=$PWD/.venv/bin GOFLAGS=-mod=mod go install "github.com/versity/versitygw/cmd/versitygw@$VERSION"; then
  touch "$stamp"
else
  echo "== versitygw could not be built: tests of the object store over S3 will be skipped"
fi
