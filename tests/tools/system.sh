#!/usr/bin/env bash
# Makes sure of what the build and the tests take from the system: a C compiler for the crates that carry C, git
# and redis-server. What is there is left alone; what is missing comes from Debian's packages.
#
# Debian starts a redis-server service of its own on installation. It is left as it is: dev mode and the tests start
# servers of their own, on free ports.
set -euo pipefail

readonly REDIS_WANTED=7.0 # script flags

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "needs root to run '$*', and there is no sudo: run it as root, then try again"
    fi
}

# Each argument: COMMAND=PACKAGE
missing_packages() {
    local pair
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || printf '%s\n' "${pair#*=}"
    done
}

install_missing() {
    local packages
    mapfile -t packages < <(missing_packages "$@" | sort -u)
    [ "${#packages[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "missing: ${packages[*]} (Debian's names). There is no apt-get here: install them with this system's own packages"
    echo "==> installing ${packages[*]}" >&2
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
}

check_redis() {
    local have
    have=$(redis-server --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p')
    [ "$(printf '%s\n' "$REDIS_WANTED" "$have" | sort -V | head -n1)" = "$REDIS_WANTED" ] ||
        fail "redis-server ${have:-of unknown version} at $(command -v redis-server) is too old: the broker's scripts need $REDIS_WANTED or newer. Put a newer one first on PATH"
}

if [ "$#" -gt 0 ]; then
    install_missing "$@"
else
    install_missing cc=build-essential make=build-essential git=git redis-server=redis-server
    check_redis
fi
