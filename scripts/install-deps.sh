#!/usr/bin/env bash
# Installs what building and testing need, only what is missing, and says what.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A program or file that must be there, and the Debian package it comes from.
NEEDED=(
  "cc build-essential"
  "make make"
  "curl curl"
  "git git"
  "mmdebstrap mmdebstrap"
  "unshare util-linux"
  "mount mount"
  "python3 python3"
  "/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring"
  "/etc/ssl/certs/ca-certificates.crt ca-certificates"
)

missing=()
for entry in "${NEEDED[@]}"; do
  read -r thing package <<<"$entry"
  if [[ $thing == /* ]]; then
    [[ -e $thing ]] || missing+=("$package")
  else
    command -v "$thing" >/dev/null || missing+=("$package")
  fi
done
# ensurepip is what Debian splits off into python3-venv.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=("python3-venv")

if ((${#missing[@]})); then
  if ! command -v apt-get >/dev/null; then
    echo "missing and no apt-get to install them: ${missing[*]}" >&2
    exit 1
  fi
  echo "== installing packages: ${missing[*]}"
  scripts/as-root.sh apt-get -q update
  scripts/as-root.sh env DEBIAN_FRONTEND=noninteractive \
    apt-get -q install -y --no-install-recommends "${missing[@]}"
fi

if ! scripts/with-rust.sh bash -c 'command -v cargo' >/dev/null; then
  echo "== installing rustup (rust-toolchain.toml names the compiler)"
  curl --proto '=https' --tlsv1.2 -fsSL https://sh.rustup.rs \
    | sh -s -- -y --no-modify-path --profile minimal --default-toolchain none
fi
# With rustup, the first cargo command fetches the compiler that rust-toolchain.toml names. A
# distribution's cargo has to be new enough by itself.
scripts/with-rust.sh cargo --version >/dev/null

# For pid 1 of sandboxes. Without it the build falls back to glibc, and says so.
musl=x86_64-unknown-linux-musl
if scripts/with-rust.sh bash -c 'command -v rustup' >/dev/null &&
  [[ ! -d $(scripts/with-rust.sh rustc --print target-libdir --target $musl) ]]; then
  echo "== adding the target $musl"
  scripts/with-rust.sh rustup target add $musl || echo "== no $musl: sandboxes will start 0.5 ms later"
fi

scripts/venv.sh
scripts/versitygw.sh
