#!/usr/bin/env bash
# Fine-tuning, shown on the demo: pre-train (if runs/demo is not there) → fine-tune → what came out → three pictures that it has never seen.
# Idempotent: a killed run goes on where it was; `make clean-demo` starts over.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m[finetune]\033[0m %s\n' "$*"; }

if ! ls -d runs/demo/checkpoints/step-* > /dev/null 2>&1; then
  say "there is no runs/demo to start from: pre-training first"
  setup/demo.sh
fi
setup/setup.sh build
say "building"
cargo build
splitmask() { cargo run --quiet -- "$@"; }

run=runs/finetune-demo
say "fine-tuning; metrics at http://127.0.0.1:9464/ (Ctrl-C stops after a checkpoint, the same command goes on)"
splitmask train --config configs/finetune-demo.toml
say "on the images of data/clipart/val, which were not trained on"
splitmask eval classify $run

# Three pictures of that set, as files: their names say what they are.
shard=$(ls data/clipart/val/*.tar | head -n 1)
pictures=$run/predicted
rm -rf "$pictures"
mkdir -p "$pictures"
tar -tf "$shard" | grep -E '\.(png|jpg)$' > "$pictures/names"
total=$(wc -l < "$pictures/names")
for part in 1 2 3; do
  name=$(sed -n "$((part * total / 4))p" "$pictures/names")
  tar -xOf "$shard" "$name" > "$pictures/$(basename "$name")"
done
rm "$pictures/names"
say "what it says of three of them, in $pictures"
splitmask predict $run "$pictures"
say "on your own: splitmask predict $run FILES; how to fine-tune on your own classes: docs/finetune.md"
