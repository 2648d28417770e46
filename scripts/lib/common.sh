# Shared by the scripts beside this directory: progress, system packages, the toolchain. Sourced, never run.
# shellcheck shell=bash

set -euo pipefail

# What `cd` prints with it would become a part of paths.
unset CDPATH
caller_directory=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"

# Debian packages the build needs. The first line is Longline's own; the others are what a Swift toolchain starts and
# links with, and are on most machines already.
debian_packages=(
    libngtcp2-dev libngtcp2-crypto-gnutls-dev libgnutls28-dev libnghttp3-dev libsqlite3-dev zlib1g-dev pkg-config
    g++ libc6-dev git ca-certificates libncurses6 libcurl4-openssl-dev libxml2
)

# Where these packages don't exist by those names, the build still works when pkg-config finds these.
pkg_config_modules=(libngtcp2 libngtcp2_crypto_gnutls gnutls libnghttp3 sqlite3 zlib)

# from_caller PATH: a path that the caller gave, who may be in another directory than we are now.
from_caller() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$caller_directory/$1" ;;
    esac
}

# Options of swift build and swift test for the package's traits.
traits=()

# Lets the package be built with packet protection on intel-ipsec-mb, where that exists. Called before setup.
use_ipsec_mb() {
    [ "$(uname -m)" = x86_64 ] || return 0
    if command -v dpkg-query >/dev/null; then
        debian_packages+=(libipsec-mb-dev)
    elif [ ! -e /usr/include/intel-ipsec-mb.h ]; then
        return 0
    fi
    traits=(--traits IPSecMB)
}

# The oldest Swift that builds the package.
swift_major=6
swift_minor=2

elapsed() {
    printf '%dm%02ds' $((SECONDS / 60)) $((SECONDS % 60))
}

# phase TEXT: what happens next, with the time since the script started.
phase() {
    printf '\n==> [%s] %s\n' "$(elapsed)" "$*"
}

note() {
    printf '    %s\n' "$*"
}

# fail TEXT [ADVICE…]: says what is wrong and what to do, and ends the script.
fail() {
    printf '\nerror: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

# The script's help: the comment at its beginning.
show_help() { sed -n '2,/^source/{/^#/s/^# \{0,1\}//p}' "$root/scripts/${0##*/}"; }

# descendants PID: the process, and what it and those that it started have started, one a line.
descendants() {
    local child
    echo "$1"
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do descendants "$child"; done
}

# end_all PID…: ends the processes with all their descendants, also those that have a process group of their own.
end_all() {
    local pid processes=()
    # All are looked for first: who loses a parent is nobody's descendant any more.
    for pid; do mapfile -t -O ${#processes[@]} processes < <(descendants "$pid"); done
    # What a thread of the tests started has the signals blocked that the thread has, and KILL is the one that can't be.
    for pid in ${processes[@]+"${processes[@]}"}; do kill -KILL "$pid" 2>/dev/null || true; done
}

# The packages of $debian_packages that are not installed, one a line.
missing_packages() {
    local package
    for package in "${debian_packages[@]}"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' || echo "$package"
    done
    # Swift's linker on Linux: part of binutils up to Debian 12, a package of its own from 13 on.
    command -v ld.gold >/dev/null || echo binutils-gold
}

# Runs a command as root, through sudo when we are not.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi
}

# What installs packages, without a question. A machine that has just been started may be at its own updates: they are waited for.
apt_install=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends)

# Brings apt's lists up to date, and says all that apt says. Here apt knows of no waiting.
update_package_lists() {
    local said attempt
    for attempt in {1..60}; do
        if said=$(as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get update 2>&1 </dev/null); then
            printf '%s\n' "$said"
            return 0
        fi
        if [ "$attempt" = 60 ] || ! grep -q 'Could not get lock' <<<"$said"; then break; fi
        sleep 5
    done
    printf '%s\n' "$said"
    return 1
}

# Installs what is missing, or says what to install and ends.
install_system_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        local module absent=()
        for module in "${pkg_config_modules[@]}"; do
            pkg-config --exists "$module" 2>/dev/null || absent+=("$module")
        done
        [ ${#absent[@]} = 0 ] && return
        fail "these C libraries are missing, and there is no apt-get here to install them: ${absent[*]}" \
            "Install ngtcp2 (0.12 or later) with its GnuTLS helper, GnuTLS, nghttp3 (0.8 or later), SQLite, zlib and" \
            "pkg-config with their headers." \
            "On Debian and Ubuntu these are: ${debian_packages[*]}"
    fi

    local missing
    missing=$(missing_packages | tr '\n' ' ')
    missing=${missing% }
    if [ -z "$missing" ]; then
        note "all there"
        return
    fi
    local advice="Install them yourself, then run this again: sudo apt-get install $missing"
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        fail "missing packages, and neither root nor sudo to install them: $missing" "$advice"
    fi
    note "installing: $missing"
    # A stale package list makes installs fail with 404, so it is brought up to date first; being offline is no error
    # yet, the packages may be in apt's cache.
    # In variables: whoever interrupts it leaves no file behind.
    local said complaints
    said=$(update_package_lists) || note "apt-get update failed, trying on"
    # All but its progress: where it reaches nobody it warns, and does not fail.
    complaints=$(grep -vE '^((Hit|Get|Ign):|Fetched |Reading |Building )' <<<"$said" | tail -n 15) || true
    # shellcheck disable=SC2086 # a list of package names
    if ! said=$(as_root "${apt_install[@]}" $missing 2>&1 </dev/null); then
        # A package that can't be found may only be one that the update did not bring.
        if [ -n "$complaints" ]; then printf '%s\n' "apt-get update:" "$complaints" "apt-get install:" >&2; fi
        tail -n 15 <<<"$said" >&2
        fail "apt-get could not install: $missing" "$advice"
    fi
}

# What the interop tests were written with.
aioquic_version=1.7.2
schemathesis_version=4.32.5
hypothesis_version=6.170.17

# install_optional PACKAGE…: whether the packages are there now. What tests can do without is no reason to fail.
install_optional() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || return 1
    as_root "${apt_install[@]}" "$@" </dev/null ||
        { update_package_lists && as_root "${apt_install[@]}" "$@" </dev/null; }
}

# install_python_peer NAME PLACE PACKAGE…: into an environment of its own under .build, unless just that is there.
install_python_peer() {
    local name=$1 place=$root/.build/$2 log=$root/.build/interop.log
    shift 2
    local mark=$place/installed
    if [ "$(cat "$mark" 2>/dev/null)" = "$*" ] && "$place/bin/python3" -c "import $name" 2>/dev/null; then
        note "$1 is there"
        return
    fi
    rm -rf "$place"
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_optional python3 python3-venv >>"$log" 2>&1 || true
    if python3 -m venv "$place" >>"$log" 2>&1 &&
        "$place/bin/pip" install --disable-pip-version-check --only-binary :all: --timeout 15 --retries 2 "$@" \
            >>"$log" 2>&1; then
        echo "$*" >"$mark"
        note "$1"
    else
        note "$name can't be had here, tests with it are skipped: $(tail -n 1 "$log") (all of it: $log)"
    fi
}

# Installs the peers of the interop tests: aioquic and schemathesis from PyPI, Debian's tshark, ngtcp2 programs and Chromium.
# Tests say that they are skipped where one can't be had.
install_interop_peers() {
    local log=$root/.build/interop.log
    mkdir -p "$root/.build"
    : >"$log"
    install_python_peer aioquic interop "aioquic==$aioquic_version"
    # hypothesis makes up its cases: with another version they are others.
    install_python_peer schemathesis schemathesis "schemathesis==$schemathesis_version" "hypothesis==$hypothesis_version"
    local package
    for package in tshark ngtcp2-client ngtcp2-server chromium; do
        if dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
            install_optional "$package" >>"$log" 2>&1; then
            note "$package $(dpkg-query -W -f '${Version}' "$package")"
        else
            note "$package can't be had here, tests with it are skipped: $(tail -n 1 "$log") (all of it: $log)"
        fi
    done
}

# Ends unless a Swift toolchain that is new enough runs.
require_swift() {
    local advice="Install Swift $swift_major.$swift_minor or later from https://www.swift.org/install and put it in PATH."
    local text version major minor
    text=$(swift --version 2>&1) || fail "'swift --version' fails:" "$text" "$advice"
    version=$(sed -n 's/.*Swift version \([0-9][0-9.]*\).*/\1/p' <<<"$text" | head -n 1)
    major=${version%%.*}
    minor=${version#*.}
    minor=${minor%%.*}
    [ -n "$version" ] || fail "can't tell the version of 'swift' from: $text" "$advice"
    if [ "$major" -lt $swift_major ] || { [ "$major" = $swift_major ] && [ "$minor" -lt $swift_minor ]; }; then
        fail "Swift $version is too old." "$advice"
    fi
    note "Swift $version"
}

# The toolchain's folder `usr`. Not where `swift` lies: swiftly, which swift.org recommends, has only links to itself there.
swift_home() {
    local resources
    resources=$(swiftc -print-target-info | sed -n 's/^ *"runtimeResourcePath": "\(.*\)",\{0,1\}$/\1/p')
    [ -n "$resources" ] || fail "'swiftc -print-target-info' does not say where the toolchain is."
    dirname "$(dirname "$resources")"
}

# The system's packages and the toolchain, as the first phases of a script.
setup() {
    # It may need some of the packages to run, but nobody needs them without it.
    command -v swift >/dev/null || fail "there is no 'swift' in PATH." \
        "Install Swift $swift_major.$swift_minor or later from https://www.swift.org/install and put it in PATH."
    phase "System packages"
    install_system_packages
    phase "Swift toolchain"
    require_swift
}
