#!/usr/bin/env bash
# Chromium and its driver for the tests of the pages, installed as root: chromium.sh install.
# Exit status 3, with one line on stderr: it cannot be done here.
set -euo pipefail

die() { echo "chromium.sh: $*" >&2; exit 3; }

apt() { DEBIAN_FRONTEND=noninteractive apt-get -y -qq "$@" </dev/null >"$log" 2>&1; }

[ "${1:-}" = install ] || die "the only command is install"
! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null || exit 0
[ "$(id -u)" = 0 ] || die "installing chromium needs root"
command -v apt-get >/dev/null || die "there is no apt-get to install chromium with"
log=$(mktemp)
packages=(install --no-install-recommends chromium chromium-driver fonts-dejavu-core)
# The package index is often there already, and updating it is the slow part.
apt "${packages[@]}" || { apt update && apt "${packages[@]}"; } ||
  die "apt-get failed: $(grep -m1 '^E:' "$log" || tail -n1 "$log") (log: $log)"
rm -f "$log"
