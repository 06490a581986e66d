#!/usr/bin/env bash
# Runs a command with the Rust toolchain on the PATH, also right after rustup was installed.
set -euo pipefail
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
exec "$@"
