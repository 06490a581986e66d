#!/usr/bin/env bash
# Stands before rustc in a fuzz build: adds coverage to this repository's own crates and leaves the
# rest as any other build has it, so that dependencies are compiled once for both.
#
# cargo gives a path dependency of another workspace a name of its own among the artifacts, so
# what is built here never mixes with an ordinary build in the same directory.
set -euo pipefail
case "${CARGO_PKG_NAME:-} $*" in
  *"--crate-name build_script_"*) exec "$@" ;; # runs on its own, without a fuzzer to report to
  crownest-*)
    # Counters and compared values, where libFuzzer looks for them; all of it is stable rustc.
    exec "$@" -C passes=sancov-module \
      -C llvm-args=-sanitizer-coverage-level=4 \
      -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
      -C llvm-args=-sanitizer-coverage-pc-table \
      -C llvm-args=-sanitizer-coverage-trace-compares
    ;;
  *) exec "$@" ;;
esac
