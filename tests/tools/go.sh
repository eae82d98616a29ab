#!/usr/bin/env bash
# Runs Go: the machine's own if it is new enough for every go.mod here, otherwise one that the Python registry
# carries, put once into a virtual environment beside this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly own=$here/go

# Otherwise an old Go would go and download the toolchain that a go.mod names, or fail to.
export GOTOOLCHAIN=local
# What the caller has set for other work must not change what is built here.
export GOWORK=off GOFLAGS=-trimpath CGO_ENABLED=0

wanted=$(sed -n 's/^go //p' "$here"/*/go.mod | sort -V | tail -n1)

new_enough() { # GO
    local have
    have=$("$1" env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "$wanted" "${have#go}" | sort -V | head -n1)" = "$wanted" ]
}

install_own() {
    # Make may build two tools at once.
    exec 9>"$here/.go.lock"
    flock 9
    if ! [ -x "$own/bin/go" ] || ! new_enough "$own/bin/go"; then
        echo "==> Go $wanted or newer is not here: installing one (about 75 MB, once)" >&2
        rm -rf "$own"
        local python=python3
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            # Debian keeps these two in a package of their own.
            "$here/system.sh" python3-venv=python3-venv
            python=/usr/bin/python3
        fi
        "$python" -m venv "$own"
        "$own/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$here/go.txt"
        new_enough "$own/bin/go" || {
            echo "error: go.txt pins a Go older than $wanted, which a go.mod here asks for" >&2
            exit 1
        }
    fi
    exec 9>&-
}

if new_enough go; then
    exec go "$@"
fi
install_own
exec "$own/bin/go" "$@"
