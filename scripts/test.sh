#!/usr/bin/env bash
# Runs every test and prints at the end how many passed, failed and were skipped, and why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
CARGO=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
log=$target/test.log
: >"$log"

failed=()
stage() {
  local name=$1
  shift
  echo "== test: $name"
  local start=$SECONDS
  # The tee must not hide the exit code: pipefail is set.
  if "$@" 2>&1 | tee -a "$log"; then
    echo "== test: $name passed ($((SECONDS - start)) s)"
  else
    echo "== test: $name FAILED ($((SECONDS - start)) s)"
    failed+=("$name")
  fi
}

templates() {
  if [[ $EUID -ne 0 ]]; then
    echo "SKIP: templates are built by root; tests that start sandboxes will skip too"
    return 0
  fi
  # code-interpreter brings base, python and python-node with it.
  "$target/debug/crownest" template build node code-interpreter
}

# --show-output: a test that cannot run here says "SKIP: why", and that must be seen.
stage "rust" "$CARGO" test --workspace --locked --no-fail-fast -- --show-output
stage "binary" "$CARGO" build --locked -p crownest-cli
stage "templates" templates
export CROWNEST_BIN=${CROWNEST_BIN:-$PWD/$target/debug/crownest}
[[ $target != /* ]] || CROWNEST_BIN=$target/debug/crownest
stage "python" .venv/bin/python -m pytest -q -rs --color=no tests

echo "== test: summary"
awk '
  /^test result:/ { for (i = 1; i < NF; i++) {
      if ($(i + 1) ~ /^passed/) passed += $i
      if ($(i + 1) ~ /^failed/) failed += $i
      if ($(i + 1) ~ /^ignored/) skipped += $i }
    next }
  # The last line of pytest, as in "3 failed, 40 passed, 2 skipped in 1.23s".
  / in [0-9.]+s/ { for (i = 1; i < NF; i++) {
      if ($(i + 1) ~ /^passed/) passed += $i
      if ($(i + 1) ~ /^(failed|error)/) failed += $i
      if ($(i + 1) ~ /^skipped/) skipped += $i } }
  END { printf "   %d passed, %d failed, %d skipped by the test runners\n", passed, failed, skipped }
' "$log"
# Rust tests and scripts say SKIP:, pytest says SKIPPED.
if skips=$(grep -aE '^(SKIP:|SKIPPED )' "$log" | sort | uniq -c); then
  echo "   what was skipped, and why:"
  sed 's/^/   /' <<<"$skips"
  echo "   SKIP lines: $(grep -acE '^SKIP:' "$log" || true), pytest skip reasons: $(grep -acE '^SKIPPED ' "$log" || true)"
else
  echo "   nothing was skipped"
fi
echo "   whole log: $log"

if ((${#failed[@]})); then
  echo "== test: FAILED: ${failed[*]}"
  exit 1
fi
echo "== test: all passed"
