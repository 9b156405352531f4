#!/usr/bin/env bash
# The demo: images → shards → codebook → training → what came out.
#   setup/demo.sh            Debian's openclipart-png, about 6 minutes of training on 2 cores
#   setup/demo.sh FOLDER     your own images; sub-folders become the classes of the k-NN check
# Idempotent: shards and codebook are made once; a killed demo goes on where it was (`make clean-demo` starts over).
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m[demo]\033[0m %s\n' "$*"; }

say "building (the first time takes some minutes: libtorch's bindings)"
cargo build --quiet
splitmask() { cargo run --quiet -- "$@"; }
splitmask doctor

images=${1:-}
if [ -n "$images" ]; then
  [ -d "$images" ] || { echo "DATA=$images is no folder" >&2; exit 64; }
  data=data/$(basename "$images"); run=runs/$(basename "$images")
else
  setup/openclipart.sh
  images=data/openclipart/usr/share/openclipart/png; data=data/clipart; run=runs/demo
fi
if [ ! -e "$data/train/manifest.json" ]; then
  say "packing $images into tar shards"
  splitmask pack "$images" "$data" --background white --square --longest-side 96 --val-share 0.2 --shard-size 8MiB --force
fi
if [ ! -e "$data/words.safetensors" ]; then
  say "making a codebook of 1,024 visual words"
  splitmask codebook "$data/train" --out "$data/words.safetensors" --kind random-patches --words 1024 --image 64 --patch 8 --pixels raw --seed 0 --picture "$data/words.png"
fi
say "training; metrics at http://127.0.0.1:9464/ (Ctrl-C stops after a checkpoint, the same command goes on)"
splitmask train --config configs/demo.toml --set run.dir="$run" --set data.train="$data/train" --set data.val="$data/val" --set codebook.path="$data/words.safetensors"
say "what came out"
splitmask report "$run"
