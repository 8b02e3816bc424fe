#!/usr/bin/env bash
# Fetches the libraries of the leaderboard's pages from the npm registry, and checks every byte.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

take() {  # package@version folder file...
  local package=$1 folder=$2 archive
  shift 2
  archive=$(cd "$work" && npm pack --silent "$package")
  mkdir -p "$folder"
  for file in "$@"; do
    tar xzf "$work/$archive" -O "package/$file" > "$folder/$(basename "$file")"
  done
}

take chart.js@4.6.1 chart.js dist/chart.umd.min.js LICENSE.md
take @tanstack/table-core@8.21.3 table-core build/umd/index.production.js LICENSE
mv table-core/index.production.js table-core/table-core.js
if [ "${1:-}" = --update ]; then
  sha256sum chart.js/* table-core/* > SHA256SUMS
fi
sha256sum --check SHA256SUMS
