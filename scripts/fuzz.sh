#!/usr/bin/env bash
# Builds the fuzz targets and runs each of them for a while on its corpus, two at a time.
#
#   scripts/fuzz.sh [seconds]          for each target, 60 unless told
#   FUZZ_TARGETS="sse egress"          these alone
#
# Inputs that reach new code are kept in <target directory>/fuzz/corpus and used again next time;
# the repository has small seeds alone (fuzz/corpus). Needs nothing but a C++ compiler: libFuzzer
# comes with the libfuzzer-sys crate, and coverage is a pass of stable rustc.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
CARGO=${CARGO:-cargo}

TARGETS_AT_ONCE=2
INPUT_BYTES_MAX=8192
# One input may take this long, and a target this much memory.
INPUT_SECONDS_MAX=25
MEMORY_MIB_MAX=1024
# Beyond its time a target may take this long to stop.
STOP_SECONDS_MAX=60
SHOWN_LINES_MAX=40

seconds=${1:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "usage: scripts/fuzz.sh [seconds]" >&2; exit 2; }
target_dir=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
work=$target_dir/fuzz
mkdir -p "$work/corpus" "$work/crashes" "$work/logs"
if [[ -n ${FUZZ_TARGETS:-} ]]; then
  read -ra targets <<<"$FUZZ_TARGETS"
else
  mapfile -t targets < <(cd fuzz/fuzz_targets && for file in *.rs; do echo "${file%.rs}"; done)
fi

touch "$work/started"

echo "== fuzz: build"
start=$SECONDS
CARGO_TARGET_DIR=$target_dir RUSTC_WRAPPER=$PWD/scripts/fuzz-rustc.sh \
  "$CARGO" build --locked --manifest-path fuzz/Cargo.toml --bins
echo "   built (${CARGO_INCREMENTAL:+incremental $CARGO_INCREMENTAL, }$((SECONDS - start)) s)"

fuzz() {
  local name=$1
  mkdir -p "$work/corpus/$name"
  timeout "$((seconds + STOP_SECONDS_MAX))" "$target_dir/debug/$name" \
    "$work/corpus/$name" "fuzz/corpus/$name" -dict=fuzz/words.dict \
    -max_total_time="$seconds" -max_len=$INPUT_BYTES_MAX -timeout=$INPUT_SECONDS_MAX \
    -rss_limit_mb=$MEMORY_MIB_MAX -artifact_prefix="$work/crashes/$name-" \
    -print_final_stats=1 >"$work/logs/$name" 2>&1
}

# From libFuzzer's report: what was run, and how far it got.
summary() {
  local name=$1
  awk -v name="$name" '
    /INITED/ { for (i = 1; i < NF; i++) if ($i == "cov:") first = $(i + 1) }
    / cov: /   { for (i = 1; i < NF; i++) if ($i == "cov:") last = $(i + 1) }
    /stat::number_of_executed_units/ { runs = $2 }
    /stat::average_exec_per_sec/ { rate = $2 }
    /stat::peak_rss_mb/ { rss = $2 }
    END { printf "   %-14s %10d runs, %6d/s, edges %d -> %d, %d MiB\n",
            name, runs, rate, first, last, rss }' "$work/logs/$name"
}

failed=()
finish_one() {
  local pid name
  pid=${pids[0]} name=${names[0]}
  pids=("${pids[@]:1}") names=("${names[@]:1}")
  if wait "$pid"; then
    summary "$name"
    return
  fi
  failed+=("$name")
  echo "   $name: FAILED" >&2
  grep -avE '^#[0-9]+|^INFO|^stat::|^###' "$work/logs/$name" | tail -n $SHOWN_LINES_MAX >&2 || true
  local crash
  crash=$(find "$work/crashes" -name "$name-*" -newer "$work/started" -print -quit)
  if [[ -n $crash ]]; then
    echo "   reproduce with: $target_dir/debug/$name $crash" >&2
    echo "   input, in base64: $(base64 -w0 "$crash")" >&2
  fi
}

echo "== fuzz: ${#targets[@]} targets, $seconds s each, $TARGETS_AT_ONCE at a time"
pids=() names=()
for name in "${targets[@]}"; do
  if ((${#pids[@]} >= TARGETS_AT_ONCE)); then
    finish_one
  fi
  fuzz "$name" &
  pids+=("$!") names+=("$name")
done
while ((${#pids[@]})); do
  finish_one
done

if ((${#failed[@]})); then
  echo "== fuzz: FAILED: ${failed[*]}"
  exit 1
fi
echo "== fuzz: nothing found"
