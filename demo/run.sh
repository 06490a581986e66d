#!/usr/bin/env bash
# Starts the demonstration (demo.py beside this file) against a binary, which it starts as a server
# of its own: demo/run.sh [path of crownest]. Needs root, and no Python package.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python3 demo/demo.py "${1:-${CROWNEST_BIN:-$PWD/target/release/crownest}}"
