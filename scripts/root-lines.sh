#!/bin/sh
# Counts the lines that run as root, for the table in SECURITY.md ("How much code runs as root").
# Without an argument it prints the table's rows; --check compares them with the document and fails
# when one is more than 3 % off; --write puts them there.
#
# A line counts when it has code: no blank lines, comments, docstrings or tests (Rust: up to the
# first `#[cfg(test)]`, without lines that start with `//`; Python: lines with a token).
set -eu
cd "$(dirname "$0")/.."

rust() {
    # shellcheck disable=SC2016
    awk 'FNR == 1 { tests = 0 } /^#\[cfg\(test\)\]/ { tests = 1 }
         !tests && NF && $1 !~ /^\/\// { count++ } END { print count + 0 }' "$@"
}

python_lines() {
    python3 - "$@" <<'PYTHON'
import ast, io, sys, tokenize

def lines(path):
    text = open(path, encoding="utf-8").read()
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
            tokenize.ENCODING, tokenize.ENDMARKER}
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skip:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.difference_update(range(body[0].lineno, body[0].end_lineno + 1))
    return len(found)

print(sum(lines(path) for path in sys.argv[1:]))
PYTHON
}

runtime=crates/runtime/src
kernel=kernels/python/crownest_kernel
spawner=$(rust $(find $runtime/spawner -name '*.rs'))
calls=$(rust $runtime/sys/*.rs)
plans=$(rust $(find $runtime/command.rs $runtime/command -name '*.rs') $runtime/plan.rs $runtime/layout.rs)
groups=$(rust $runtime/cgroup/*.rs)
filter=$(rust $runtime/seccomp/*.rs)
snapshots=$(rust $(find $runtime/snapshot -name '*.rs' ! -name tests.rs))
entry=$(rust crates/cli/src/spawner.rs)
total=$((spawner + calls + plans + groups + filter + snapshots + entry))
zygote=$(python_lines kernels/python/zygote.py $kernel/privileges.py $kernel/warmup.py)
# shellcheck disable=SC2046
rest=$(python_lines $(find $kernel -name '*.py' ! -name privileges.py ! -name warmup.py))
supervisor=$(rust crates/cli/src/supervisor.rs crates/cli/src/prepare.rs)

thousands() {
    printf '%s' "$1" | sed -e ':a' -e 's/\([0-9]\)\([0-9]\{3\}\)\($\|,\)/\1,\2\3/;ta'
}

rows() {
    echo "| spawner: \`runtime/src/spawner/**\` | $(thousands "$spawner") |"
    echo "| its system calls: \`runtime/src/sys/*\` | $(thousands "$calls") |"
    echo "| its commands, plan and paths: \`command.rs\`, \`command/wire.rs\`, \`plan.rs\`, \`layout.rs\` (the client's half of \`command.rs\` included) | $(thousands "$plans") |"
    echo "| control groups, both versions: \`runtime/src/cgroup/*\` | $(thousands "$groups") |"
    echo "| filter compiler: \`runtime/src/seccomp/*.rs\` | $(thousands "$filter") |"
    echo "| snapshots, in children with few capabilities: \`runtime/src/snapshot/*\` | $(thousands "$snapshots") |"
    echo "| its entry: \`cli/src/spawner.rs\` | $(thousands "$entry") |"
    echo "| **spawner** | **$(thousands "$total")** |"
    echo "| \`kernels/python/zygote.py\`, \`privileges.py\`, \`warmup.py\` | $(thousands "$zygote") |"
    echo "| the rest of \`crownest_kernel\`, loaded before a zygote's first fork | $(thousands "$rest") |"
    echo "| supervisor: \`cli/src/supervisor.rs\`, \`prepare.rs\` | $(thousands "$supervisor") |"
}

case "${1:-}" in
--check)
    rows | awk -F'|' '
        function number(text) { gsub(/[^0-9]/, "", text); return text + 0 }
        FNR == NR { counted[$2] = number($3); next }
        ($2 in counted) && /^\|/ { written[$2] = number($3) }
        END {
            for (part in counted) {
                off = counted[part] - written[part]
                if (off < 0) off = -off
                # Small changes need no new count; one that matters does.
                if (!(part in written) || off * 100 > counted[part] * 3) {
                    print "SECURITY.md says " written[part] + 0 ", counted " counted[part] ":" part
                    failed = 1
                }
            }
            if (failed) print "scripts/root-lines.sh --write puts the count into SECURITY.md"
            exit failed
        }' - SECURITY.md
    ;;
--write)
    rows >"${TMPDIR:-/tmp}/root-lines.$$"
    awk -v rows="${TMPDIR:-/tmp}/root-lines.$$" '
        /^\| part \| lines \|/ { print; getline; print; while ((getline line < rows) > 0) print line; skip = 1; next }
        skip && /^\|/ { next }
        { skip = 0; print }' SECURITY.md >SECURITY.md.new
    mv SECURITY.md.new SECURITY.md
    rm "${TMPDIR:-/tmp}/root-lines.$$"
    ;;
*) rows ;;
esac
