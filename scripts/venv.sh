#!/usr/bin/env bash
# Makes .venv for the Python tests: pytest, and the very packages of the python template, so that
# kernel tests outside a sandbox meet the same software as inside.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

requirements=(scripts/test-requirements.txt)
[[ -f tests/requirements.txt ]] && requirements+=(tests/requirements.txt)
stamp=.venv/installed
clients=tests/opensandbox/requirements.txt
wanted=$(cat "${requirements[@]}" "$clients" templates/python/template.toml scripts/venv.sh | sha256sum)
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
  exit 0
fi

echo "== installing Python packages into .venv"
python3 -m venv .venv
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
.venv/bin/python - >"$pins" <<'PY'
import sys

if sys.version_info < (3, 11):
    sys.exit("the tests need Python 3.11 or newer, this is " + sys.version.split()[0])
import tomllib

with open("templates/python/template.toml", "rb") as file:
    python = tomllib.load(file)["python"]
print("\n".join(python["packages"] + python["constraints"]))
PY
arguments=()
for file in "${requirements[@]}"; do
  arguments+=(--requirement "$file")
done
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
  --requirement "$pins" "${arguments[@]}"
# Beside the others: tests/opensandbox puts this directory in front. Complete, hence --no-deps.
rm -rf .venv/opensandbox
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
  --target .venv/opensandbox --requirement "$clients"
printf '%s' "$wanted" >"$stamp"
