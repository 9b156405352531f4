#!/usr/bin/env bash
# Segmentation, shown on composed scenes: pre-train (if runs/demo is not there) → scenes → fine-tune → what came out → maps of three scenes.
# Idempotent: a killed run goes on where it was; `make clean-demo` starts over.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m[segment]\033[0m %s\n' "$*"; }

if ! ls -d runs/demo/checkpoints/step-* > /dev/null 2>&1; then
  say "there is no runs/demo to start from: pre-training first"
  setup/demo.sh
fi
setup/scenes.sh
setup/setup.sh build
say "building"
cargo build
splitmask() { cargo run --quiet -- "$@"; }

run=runs/segment-scenes
say "fine-tuning; metrics at http://127.0.0.1:9464/ (Ctrl-C stops after a checkpoint, the same command goes on)"
splitmask train --config configs/segment-scenes.toml
say "on scenes of drawings that were not trained on"
splitmask eval segment $run
say "maps of three of them, in $run/predicted"
splitmask predict $run data/scenes-files/images/val/00000{0,1,2}.png --out $run/predicted
say "on your own: splitmask predict $run FILES --out FOLDER; how to train on your own maps: docs/segment.md"
