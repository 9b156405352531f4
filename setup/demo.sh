#!/usr/bin/env bash
# The demo: images → shards → codebook → training → what came out.
#   setup/demo.sh            Debian's openclipart-png, about 6 minutes of training on 2 cores
#   setup/demo.sh FOLDER     your own images; sub-folders become the classes of the k-NN check
#   OBJECTIVE=mae            another objective than SplitMask (with configs/mae-demo.toml)
# Idempotent: shards and codebook are made once; a killed demo goes on where it was (`make clean-demo` starts over).
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m[demo]\033[0m %s\n' "$*"; }

images=${1:-}
objective=${OBJECTIVE:-splitmask} config=configs/demo.toml
if [ "$objective" != splitmask ]; then
  config=configs/$objective-demo.toml
  there=$(cd configs && ls ./*-demo.toml | sed 's|^./||; s|-demo.toml||' | tr '\n' ' ')
  [ -e "$config" ] || { echo "OBJECTIVE=$objective has no demo; there are: splitmask $there" >&2; exit 64; }
fi
[ -z "$images" ] || [ -d "$images" ] || { echo "DATA=$images is no folder" >&2; exit 64; }
cache=${SPLITMASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/splitmask}
target=${CARGO_TARGET_DIR:-target}

# What is still to be done, before anything is: minutes on two cores, MB to fetch, MB of disk.
minutes=0 fetch=0 disk=0
takes() { say "  $1"; minutes=$((minutes + $2)) fetch=$((fetch + $3)) disk=$((disk + $4)); }
say "this will take (on two cores; what is there already is not done again):"
[ -e "${LIBTORCH:-.libtorch}/lib/libtorch_cpu.so" ] || takes "libtorch: 545 MB to fetch once, 1.1 GB in $cache" 2 545 1100
[ -e "$target/debug/splitmask" ] || takes "compiling: about 10 minutes, most of it libtorch's bindings; 2 GB in $target" 10 80 2000
if [ -z "$images" ]; then
  [ -e data/openclipart/complete ] || takes "images: 110 MB to fetch, 300 MB in data" 1 110 300
  takes "training: 6 minutes, or what is left of them; 200 MB in data and runs" 6 0 200
else
  takes "packing $images, and training: 6 minutes, or what is left of them" 6 0 200
fi
free=$(df -Pm . | awk 'NR == 2 { print $4 }')
say "together about $minutes minutes, $fetch MB to fetch, $disk MB of disk (free here: $free MB)"
[ "$free" -gt "$disk" ] || { echo "not enough room on this disk: free some, or clone elsewhere and set SPLITMASK_CACHE and CARGO_TARGET_DIR" >&2; exit 64; }

setup/setup.sh build
say "building"
cargo build
splitmask() { cargo run --quiet -- "$@"; }
splitmask doctor

if [ -n "$images" ]; then
  data=data/$(basename "$images"); run=runs/$(basename "$images")
else
  setup/openclipart.sh
  images=data/openclipart/usr/share/openclipart/png; data=data/clipart; run=runs/demo
fi
[ "$objective" = splitmask ] || run=$run-$objective
if [ ! -e "$data/train/manifest.json" ]; then
  say "packing $images into tar shards"
  splitmask pack "$images" "$data" --background white --square --longest-side 96 --val-share 0.2 --shard-size 8MiB --force
fi
words=()
grep -q '^\[codebook\]' "$config" && words=(--set codebook.path="$data/words.safetensors")
if [ ${#words[@]} -gt 0 ] && [ ! -e "$data/words.safetensors" ]; then
  say "making a codebook of 1,024 visual words"
  splitmask codebook "$data/train" --out "$data/words.safetensors" --kind random-patches --words 1024 --image 64 --patch 8 --pixels raw --seed 0 --picture "$data/words.png"
fi
say "training; metrics at http://127.0.0.1:9464/ (Ctrl-C stops after a checkpoint, the same command goes on)"
splitmask train --config "$config" --set run.dir="$run" --set data.train="$data/train" --set data.val="$data/val" "${words[@]}"
say "what came out"
splitmask report "$run"
