#!/bin/sh
# Builds the Go kernel of a template: the driver, and what it compiles cells with. Run as root, at
# the end of the build of a template, without a network.
#
#   build.sh VERSION...          for the toolchains in /opt/go/VERSION, such as 1.24
#   build.sh GOROOT OUT          for one toolchain, into OUT; the driver goes beside OUT
#
# OUT, by default /opt/crownest-go/VERSION, is only read afterwards, by any user.
set -eu
source=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GOTOOLCHAIN=local GOFLAGS= GOENV=off GOWORK=off CGO_ENABLED=0 GOPROXY=off
unset GOROOT GOOS GOARCH GOEXPERIMENT

# minor GOROOT: 24 of go1.24.13.
minor() { head -n 1 "$1/VERSION" | cut -d. -f2 | sed 's/[^0-9].*//'; }

# build_driver GOROOT DIRECTORY: with that toolchain, unless one that is newer did it already. The
# driver reads what a toolchain's compiler writes, so it must not be older than that.
build_driver() {
	if [ -e "$2/driver" ] && [ "$(cat "$2/driver.minor" 2>/dev/null || echo 0)" -gt "$(minor "$1")" ]; then
		return
	fi
	GOCACHE=$work/cache "$1/bin/go" build -C "$source" -trimpath -buildvcs=false -ldflags '-s -w' -o "$work/driver" ./cmd/driver
	install -m 0755 "$work/driver" "$2/driver"
	minor "$1" > "$2/driver.minor"
	rm -rf "$work/cache"
}

# prepare GOROOT OUT
prepare() {
	# The archive of a module has no programs: what was unpacked by hand may lack the right to run.
	for program in "$1"/bin/* "$1"/pkg/tool/*/*; do
		[ -x "$program" ] || chmod 0755 "$program"
	done
	rm -rf "$2"
	mkdir -p "$2"
	build_driver "$1" "$(dirname "$2")"
	"$(dirname "$2")/driver" prepare "$1" "$source" "$2"
	chmod -R u=rwX,go=rX "$2"
}

case ${1-} in
	/*) prepare "$1" "${2:?OUT}" ;;
	?*) for version in "$@"; do prepare "/opt/go/$version" "/opt/crownest-go/$version"; done ;;
	*) echo "usage: build.sh VERSION... or build.sh GOROOT OUT" >&2; exit 2 ;;
esac
