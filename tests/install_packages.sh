#!/usr/bin/env bash
# Installs the Debian packages that the tests marked `packages` need; does nothing where all of them are there.
set -euo pipefail
cd "$(dirname "$0")"

mapfile -t packages < <(grep -vE '^(#|$)' packages.txt)
if dpkg -s "${packages[@]}" >/dev/null 2>&1; then exit 0; fi
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${packages[@]}" >/dev/null
