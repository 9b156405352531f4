#!/usr/bin/env bash
# Scenes with label maps and objects, composed of Debian's openclipart-png and packed into shards: the test bed of segmentation and detection.
#   setup/scenes.sh [FOLDER] [SIDE]    default: data/scenes, 96 pixels; the files themselves end up in FOLDER-files
# Idempotent: scenes that are packed are left as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m[scenes]\033[0m %s\n' "$*"; }
data=${1:-data/scenes} side=${2:-96}
files=$data-files

if [ -e "$data/train/manifest.json" ]; then
  say "$data: there"; exit 0
fi
setup/setup.sh build
cargo build
splitmask() { cargo run --quiet -- "$@"; }
setup/openclipart.sh
rm -rf "$files"
say "composing scenes of $side pixels (a minute)"
splitmask scenes data/openclipart/usr/share/openclipart/png "$files" --size "$side"
splitmask pack "$files/images/train" "$data" --val "$files/images/val" --class none --shard-size 8MiB \
  --maps "$files/maps/train" --val-maps "$files/maps/val" --map-classes "$files/classes.txt" \
  --coco "$files/objects/train.json" --val-coco "$files/objects/val.json"
splitmask inspect "$data/train" --contact-sheet "$data/sheet.png"
