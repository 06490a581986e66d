#!/usr/bin/env bash
# Everything that can be said about the code without running it. Goes through all checks before it
# fails, so that one run shows everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
CARGO=${CARGO:-cargo}
CARGO_DENY_VERSION=0.20.2

failed=()
check() {
  local name=$1
  shift
  echo "== lint: $name"
  local start=$SECONDS
  if "$@"; then
    echo "   ok ($((SECONDS - start)) s)"
  else
    echo "   FAILED ($((SECONDS - start)) s): $*"
    failed+=("$name")
  fi
}

# Compiling cargo-deny takes 3.5 minutes of processor time, longer than most of the rest together,
# so it is used where it is and installed where that was asked for.
deny() {
  if ! command -v cargo-deny >/dev/null && [[ ${CROWNEST_INSTALL_DENY:-} == 1 ]]; then
    $CARGO install cargo-deny --locked --version "$CARGO_DENY_VERSION"
  fi
  if ! command -v cargo-deny >/dev/null; then
    echo "SKIP: cargo deny (licences, advisories, sources) is not installed;" \
      "CROWNEST_INSTALL_DENY=1 make lint installs it (several minutes)"
    return 0
  fi
  cargo-deny --log-level warn check bans licenses sources || return 1
  # The advisories are a git repository of their own.
  if ! timeout 60 cargo-deny --log-level error fetch db >/dev/null 2>&1; then
    echo "SKIP: advisories: their database cannot be reached from here"
    return 0
  fi
  cargo-deny --log-level warn check advisories
}

scripts_parse() {
  local file
  for file in .ci/run scripts/*.sh demo/*.sh; do
    [[ ! -f $file ]] || bash -n "$file" || return 1
  done
}

check "format" "$CARGO" fmt --all --check
check "clippy" "$CARGO" clippy --workspace --all-targets --locked -- -D warnings
# A workspace of its own, with what no other build needs. Same target directory: its dependencies
# are the ones that were just checked.
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
check "format of fuzz" "$CARGO" fmt --manifest-path fuzz/Cargo.toml --check
check "clippy of fuzz" env CARGO_TARGET_DIR="$target" \
  "$CARGO" clippy --manifest-path fuzz/Cargo.toml --all-targets --locked -- -D warnings
check "dependencies" deny
check "shell scripts" scripts_parse
check "lines that run as root" scripts/root-lines.sh --check
mapfile -t python_dirs < <(for dir in kernels tests demo; do [[ ! -d $dir ]] || echo "$dir"; done)
# Names that do not exist, imports nobody uses: defects, not taste.
check "python" .venv/bin/ruff check --quiet --isolated --no-cache --select E9,F "${python_dirs[@]}"

if ((${#failed[@]})); then
  echo "== lint: FAILED: ${failed[*]}"
  exit 1
fi
echo "== lint: all passed"
