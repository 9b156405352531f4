#!/usr/bin/env bash
# Lays docs/ out as a site in target/site: open target/site/index.html. What is not in docs/ but linked from there goes beside it.
#   setup/docs.sh            builds it
#   setup/docs.sh serve      builds it and serves it on 127.0.0.1:3000
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .docs/mdbook ] || { echo "mdbook is missing: setup/setup.sh docs" >&2; exit 64; }
site=target/site
rm -rf "$site"; mkdir -p "$site"
# A warning of mdbook is a page that does not look as it should.
said=$(.docs/mdbook build docs 2>&1) || { echo "$said" >&2; exit 70; }
if grep -E 'WARN|ERROR' <<<"$said" >&2; then exit 70; fi
rm -f "$site/docs/book.toml"
cp -r configs "$site/"
printf '<!doctype html>\n<meta charset="utf-8">\n<title>splitmask</title>\n<meta http-equiv="refresh" content="0; url=docs/index.html">\n<a href="docs/index.html">splitmask</a>\n' >"$site/index.html"
echo "[docs] $site/index.html: $(find "$site/docs" -name '*.html' | wc -l) pages"
if [ "${1:-}" = serve ]; then exec python3 -m http.server --bind 127.0.0.1 --directory "$site" 3000; fi
