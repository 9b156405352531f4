#!/usr/bin/env bash
# Fetches the demo's images: Debian's package openclipart-png, 8,121 public-domain drawings in labelled folders (110 MB).
#   setup/openclipart.sh [FOLDER]     default: data/openclipart; the images end up in FOLDER/usr/share/openclipart/png
# Needs no root: apt-get checks signature and checksum, dpkg-deb unpacks into FOLDER. Idempotent. Exit code 3: the package cannot be had here.
# Environment: SPLITMASK_CACHE=DIR moves the download cache (default: ~/.cache/splitmask).
set -euo pipefail
cd "$(dirname "$0")/.."
package=openclipart-png
folder=${1:-data/openclipart}
images=usr/share/openclipart/png
cache=${SPLITMASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/splitmask}

say() { printf '\033[1m[openclipart]\033[0m %s\n' "$*"; }
cannot() {
  printf '\033[1;31m[openclipart] %s\033[0m\n' "$*" >&2
  printf '[openclipart] any folder of images will do instead:  make demo DATA=/path/to/your/images\n' >&2
  exit 3
}
count() { find -L "$1" -name '*.png' 2>/dev/null | wc -l; }

if [ -e "$folder/complete" ] && [ "$(count "$folder/$images")" = "$(cat "$folder/complete")" ]; then
  say "$(cat "$folder/complete") images in $folder/$images: there"; exit 0
fi
if [ -e "$folder" ] && [ ! -e "$folder/complete" ] && [ -n "$(ls -A "$folder")" ]; then
  cannot "$folder holds something else; name another folder: setup/openclipart.sh FOLDER"
fi
tmp="$folder.partial"
rm -rf "$tmp"; mkdir -p "$tmp/$(dirname $images)" "$cache/downloads"

finish() { # the folder appears whole or not at all
  local n; n=$(count "$tmp/$images")
  [ "$n" -gt 0 ] || cannot "$package holds no PNG files where they were expected ($images)"
  echo "$n" >"$tmp/complete"
  rm -rf "$folder"; mkdir -p "$(dirname "$folder")"; mv "$tmp" "$folder"
  say "$n images in $folder/$images"
  exit 0
}

if [ "$(count /$images)" -gt 0 ]; then
  say "$package is installed on this machine; linking to it"
  ln -s "/$images" "$tmp/$images"; finish
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || cannot "no apt-get here (not Debian or Ubuntu), so $package cannot be fetched"

# apt's own lists where they exist, else private ones, which an ordinary user may fetch.
apt=(-o "Dir::Cache=$cache/apt/cache" -o APT::Sandbox::User=)
shown() { apt-cache "${apt[@]}" --no-all-versions show "$package" 2>/dev/null; }
if ! shown | grep -q '^SHA256:'; then
  say "apt knows no $package; fetching package lists into the cache (no root needed)"
  apt+=(-o "Dir::State::lists=$cache/apt/lists")
  mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
  apt-get "${apt[@]}" -q update || cannot "package lists cannot be fetched (network? else run as root: apt-get update)"
fi
sha=$(shown | sed -n 's/^SHA256: //p' | head -1)
[ -n "$sha" ] || cannot "the package sources of this machine hold no $package (Debian main, Ubuntu universe)"
mkdir -p "$cache/apt/cache/archives/partial"

matching() { for deb in "$cache/downloads/${package}_"*.deb; do [ -f "$deb" ] && echo "$sha  $deb" | sha256sum --check --status && echo "$deb" && return; done; return 0; }
deb=$(matching)
if [ -z "$deb" ]; then
  say "fetching $package ($(( $(shown | sed -n 's/^Size: //p' | head -1) / 1000000 )) MB)"
  rm -f "$cache/downloads/${package}_"*.deb
  (cd "$cache/downloads" && apt-get "${apt[@]}" download "$package") || cannot "apt-get could not download $package (network? disk space? old lists: apt-get update as root)"
  deb=$(matching)
  [ -n "$deb" ] || cannot "the checksum of $package differs from the package list's"
fi
say "unpacking $(basename "$deb")"
dpkg-deb -x "$deb" "$tmp"
finish
