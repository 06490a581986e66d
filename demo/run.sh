#!/usr/bin/env bash
# Starts the demonstration (demo.py beside this file), which starts a server of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CROWNEST_BIN=${CROWNEST_BIN:-$PWD/target/release/crownest}
exec .venv/bin/python demo/demo.py "$@"
