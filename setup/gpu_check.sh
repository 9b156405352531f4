#!/usr/bin/env bash
# What a GPU makes of this program, in about 6 minutes: agreement with PyTorch, speed of steps, of the pipeline and of a run, kill and resume, memory.
#   setup/gpu_check.sh            prepares .gpu/ and runs it here (`make gpu-check`; needs CUDA)
#   setup/gpu_check.sh prepare    prepares .gpu/ only, on a machine without a GPU. Carry it to one that has the pip wheel torch 2.11 and nothing
#                                 else of this project, and there: bash .gpu/run.sh. It leaves gpu_check.json and gpu_check.txt in $OUT (.gpu/out)
# DEVICE=cpu TINY=1 tries the whole of it anywhere, at a size that says nothing about speed.
# PHOTOS=FOLDER takes the shards in it instead of clip art as JPEG, WORDS=N another vocabulary than 8,192. PROGRAM=, PARITY= name built programs instead of building them.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${GPU_FOLDER:-.gpu}
say() { printf '\033[1m[gpu-check]\033[0m %s\n' "$*"; }
die() { echo "$*" >&2; exit 64; }
case ${1:-run} in prepare | run) ;; *) die "usage: setup/gpu_check.sh [prepare]" ;; esac

program=${PROGRAM:-} parity=${PARITY:-}
if [ -z "$program" ] || [ -z "$parity" ]; then
  setup/setup.sh build
  say "building the program and its tests against PyTorch"
  cargo build
  program=${CARGO_TARGET_DIR:-target}/debug/splitmask
  parity=$(cargo test --test parity --no-run --message-format=json |
    python3 -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "parity"][0])')
fi
rm -rf "$out"
mkdir -p "$out/tests/fixtures" "$out/photos"
say "programs, stripped"
for pair in "$program:splitmask" "$parity:parity"; do
  strip -o "$out/${pair##*:}" "${pair%:*}"
  gzip -f "$out/${pair##*:}"
done
cp tests/fixtures/*.safetensors "$out/tests/fixtures/"
cp setup/gpu/run.sh setup/gpu/check.py benches/splitmask_step.py "$out/"

photos=${PHOTOS:-}
if [ -z "$photos" ]; then
  setup/openclipart.sh
  photos=data/gpu-check/train
  [ -e "$photos/manifest.json" ] || "$program" pack data/openclipart/usr/share/openclipart/png data/gpu-check --background white --longest-side 500 --encode jpeg --shard-size 12MiB --force
fi
shard=$(find "$photos" -maxdepth 1 -name '*.tar' | sort | head -1)
[ -n "$shard" ] || die "PHOTOS=$photos holds no *.tar"
# The first megabytes of a shard, by whole members: a few hundred pictures are enough, and all must be carried.
python3 - "$shard" "$out/photos/000000.tar" <<'P'
import sys, tarfile
with tarfile.open(sys.argv[1]) as source, tarfile.open(sys.argv[2], "w") as target:
    total = 0
    for member in source:
        total += member.size
        if total > 12 << 20: break
        target.addfile(member, source.extractfile(member))
P
words=${WORDS:-8192}
say "$words words of its pictures"
"$program" codebook "$out/photos" --out "$out/words.safetensors" --kind random-patches --words "$words" --image 224 --patch 16 --seed 0 >/dev/null
git rev-parse HEAD >"$out/commit" 2>/dev/null || echo unknown >"$out/commit"
size=$(du -sm "$out" | cut -f1)
say "$out: $size MiB"
[ "$size" -le 55 ] || die "$out is larger than 55 MiB and may be too large to carry: take a smaller PHOTOS"
[ "${1:-run}" = prepare ] || exec bash "$out/run.sh"
