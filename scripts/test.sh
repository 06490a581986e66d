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

# A test that fails is run once more, alone: on a machine that others load, a wait may have been too
# short. What fails again has failed; what does not is counted and shown, since it is a defect of the
# test or worse. More than this many at once are no accident.
RETRIED_MAX=5

rust_tests() {
  local output=$target/test-rust.log names name
  "$CARGO" test --workspace --locked --no-fail-fast -- --show-output 2>&1 | tee "$output" && return 0
  # Lines of the runners; without one it did not compile, or a test took its process along.
  mapfile -t names < <(sed -nE 's/^test (.+) \.\.\. FAILED$/\1/p' "$output" | sort -u)
  ((${#names[@]} > 0 && ${#names[@]} <= RETRIED_MAX)) || return 1
  for name in "${names[@]}"; do
    "$CARGO" test --workspace --locked -- --exact "$name" || return 1
    echo "FLAKY: $name"
  done
}

python_tests() {
  local output=$target/test-python.log count
  .venv/bin/python -m pytest -q -rsfE --color=no "$@" 2>&1 | tee "$output" && return 0
  count=$(grep -acE '^(FAILED|ERROR) ' "$output" || true)
  ((count > 0 && count <= RETRIED_MAX)) || return 1
  .venv/bin/python -m pytest -q -rsfE --color=no --last-failed --last-failed-no-failures=none "$@" || return 1
  grep -aE '^(FAILED|ERROR) ' "$output" | sed 's/^/FLAKY: /'
}

# --show-output: a test that cannot run here says "SKIP: why", and that must be seen.
stage "rust" rust_tests
stage "binary" "$CARGO" build --locked -p crownest-cli
stage "templates" templates
export CROWNEST_BIN=${CROWNEST_BIN:-$PWD/$target/debug/crownest}
[[ $target != /* ]] || CROWNEST_BIN=$target/debug/crownest
# Tests of one driver each share nothing, so as many run at a time as there are processors. The others
# look at the whole machine.
stage "kernels" python_tests tests/kernels --numprocesses=auto
stage "python" python_tests tests --ignore=tests/kernels

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
if flaky=$(grep -aE '^FLAKY: ' "$log" | sort -u); then
  echo "   failed once and then passed:"
  sed 's/^/   /' <<<"$flaky"
fi
echo "   whole log: $log"

# Last, so that who sees only the end of a long log sees what failed and how.
FAILURES_MAX=40
FAILURE_LINES_MAX=30
if ((${#failed[@]})); then
  echo "== test: what failed (the first $FAILURES_MAX)"
  # What pytest marks with E, below the line that names its test.
  awk -v tests="$FAILURES_MAX" -v lines="$FAILURE_LINES_MAX" '
    /^_{3,} .* _{3,}$/ { shown++; left = lines; if (shown <= tests) print; next }
    /^E / && shown <= tests && left-- > 0 { print substr($0, 1, 300) }
  ' "$log"
  grep -aE '^(FAILED|ERROR) |^test .* FAILED$|panicked at' "$log" | cut -c1-300 | sort -u | head -n "$FAILURES_MAX"
fi

if ((${#failed[@]})); then
  echo "== test: FAILED: ${failed[*]}"
  exit 1
fi
echo "== test: all passed"
