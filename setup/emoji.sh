#!/usr/bin/env bash
# Fetches a second set of images for `make results TABLE=family`: 1,911 emoji as four companies draw them, 64 pixels wide (340 MB from npm).
#   setup/emoji.sh [FOLDER]     default: data/emoji-pictures
# FOLDER/three-hands/CLASS/ holds those of Apple, Facebook and Twitter, FOLDER/fourth-hand/CLASS/ Google's: what is tested on was drawn by
# another hand than what is trained on, so that no copy can help. Classes are Unicode's sub-categories. Idempotent.
# Environment: SPLITMASK_CACHE=DIR moves the download cache (default: ~/.cache/splitmask).
set -euo pipefail
cd "$(dirname "$0")/.."
. setup/versions.env
folder=${1:-data/emoji-pictures}
cache=${SPLITMASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/splitmask}/downloads
say() { printf '\033[1m[emoji]\033[0m %s\n' "$*"; }
cannot() { printf '\033[1;31m[emoji] %s\033[0m\n' "$*" >&2; exit 3; }

if [ -e "$folder/complete" ]; then say "$(cat "$folder/complete") images in $folder: there"; exit 0; fi
[ ! -e "$folder" ] || cannot "$folder holds something else; name another folder: setup/emoji.sh FOLDER"
command -v npm >/dev/null || cannot "npm is needed to fetch the emoji: Debian's package npm"
tmp=$folder.partial
rm -rf "$tmp"; mkdir -p "$tmp/packages" "$cache"
for hand in google apple facebook twitter; do
  name=emoji-datasource-$hand-$EMOJI_VERSION.tgz sum=EMOJI_SHA256_$hand
  there() { echo "${!sum}  $cache/$name" | sha256sum --check --status 2>/dev/null; }
  if ! there; then
    say "fetching $name"
    (cd "$cache" && npm pack --silent "emoji-datasource-$hand@$EMOJI_VERSION" >/dev/null) || cannot "npm could not fetch $name (network? disk?)"
    there || cannot "the checksum of $cache/$name is not that of setup/versions.env"
  fi
  mkdir -p "$tmp/packages/$hand"
  tar -xzf "$cache/$name" -C "$tmp/packages/$hand" package/emoji.json "package/img/$hand/64"
done
python3 - "$tmp" <<'PY'
import json, os, sys

root = sys.argv[1]
images = 0
for hand in ["google", "apple", "facebook", "twitter"]:
    package = f"{root}/packages/{hand}/package"
    part = "fourth-hand" if hand == "google" else "three-hands"
    # Variants of skin tone are left out: they repeat a drawing.
    for emoji in json.load(open(f"{package}/emoji.json")):
        if emoji[f"has_img_{hand}"]:
            os.makedirs(f"{root}/{part}/{emoji['subcategory']}", exist_ok=True)
            os.rename(f"{package}/img/{hand}/64/{emoji['image']}", f"{root}/{part}/{emoji['subcategory']}/{hand}-{emoji['image']}")
            images += 1
open(f"{root}/complete", "w").write(f"{images}\n")
PY
rm -rf "$tmp/packages"
mkdir -p "$(dirname "$folder")"; mv "$tmp" "$folder"
say "$(cat "$folder/complete") images in $folder"
