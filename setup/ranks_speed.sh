#!/usr/bin/env bash
# How much faster two ranks of one thread are than one, on this machine's processors: ViT-Ti/8 (64 px), 64 images a rank, f32, in turns. Prints images/s,
# the share of a step that is only waiting for the other rank, and the time in the tick. Needs two quiet cores (CORES="2 3" takes others) and shards.
#   setup/ranks_speed.sh SHARDS [PROGRAM [ROUNDS [STEPS]]]      for example: setup/ranks_speed.sh data/openclipart/train
set -euo pipefail
shards=$(realpath "${1:?usage: setup/ranks_speed.sh SHARDS [PROGRAM [ROUNDS [STEPS]]]}")
program=$(realpath "${2:-target/debug/splitmask}"); rounds=${3:-3}; steps=${4:-60}
read -ra cores <<<"${CORES:-0 1}"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cat >"$work/c.toml" <<TOML
[run]
dir = "$work/run"
[data]
train = "$shards"
[model]
size = "tiny"
image = 64
patch = 8
[objective]
kind = "mae"
[train]
precision = "f32"
device = "cpu"
threads = 1
[pipeline]
workers = 1
[optim]
total_steps = $steps
[checkpoint]
every_steps = 1000000
[picture]
every_steps = 0
[log]
every_steps = 10
TOML
start() { # start RANKS NAME
  local world=$1 name=$2 port=$((20000 + RANDOM % 9000)) ids=()
  for ((rank = 0; rank < world; rank++)); do
    RANK=$rank WORLD_SIZE=$world MASTER_ADDR=127.0.0.1 MASTER_PORT=$port taskset -c "${cores[rank]}" "$program" train --config "$work/c.toml" \
      --set "run.dir=\"$work/$name\"" --set "train.batch=$((64 * world))" --set "admin.bind=\"127.0.0.1:$((port + 1 + rank))\"" \
      >"$work/$name-$rank.log" 2>&1 & ids+=($!)
  done
  # The last scrape before the end: what the counters came to.
  while kill -0 "${ids[0]}" 2>/dev/null; do
    python3 -c "import sys, urllib.request as r; sys.stdout.write(r.urlopen('http://127.0.0.1:$((port + 1))/metrics', timeout=2).read().decode())" \
      >"$work/scrape" 2>/dev/null && grep -q splitmask_train_steps_total "$work/scrape" && mv "$work/scrape" "$work/$name.metrics"
    sleep 0.3
  done
  for id in "${ids[@]}"; do wait "$id" || { cat "$work/$name"-*.log >&2; exit 70; }; done
}
for ((round = 1; round <= rounds; round++)); do
  start 1 "one-$round"; start 2 "two-$round"
done
python3 - "$work" "$rounds" <<'PY'
import json, re, statistics, sys
from pathlib import Path
work, rounds = Path(sys.argv[1]), int(sys.argv[2])
def speed(name):  # the first interval warms up
    lines = [json.loads(l) for l in (work / name / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(l["images_per_second"] for l in lines[1:] if "images_per_second" in l)
def metric(name, series):
    text = (work / f"{name}.metrics").read_text()
    return sum(float(v) for v in re.findall(rf"^{series}(?:\{{[^}}]*\}})? (\S+)$", text, re.M))
one, two = ([speed(f"{n}-{r}") for r in range(1, rounds + 1)] for n in ("one", "two"))
print("images/s, one rank:  " + " ".join(f"{x:.1f}" for x in one))
print("images/s, two ranks: " + " ".join(f"{x:.1f}" for x in two))
print(f"speed-up (median of rounds): {statistics.median(b / a for a, b in zip(one, two)):.3f}")
for r in range(1, rounds + 1):
    name = f"two-{r}"
    steps = metric(name, "splitmask_train_step_duration_seconds_count")
    wall = metric(name, "splitmask_train_step_duration_seconds_sum")
    exchange, tick = metric(name, "splitmask_ranks_exchange_seconds_total"), metric(name, "splitmask_ranks_tick_seconds_total")
    word = metric(name, "splitmask_ranks_tick_message_seconds_total") / metric(name, "splitmask_ranks_ticks_total")
    print(f"round {r}: step {1e3 * wall / steps:.1f} ms, waiting for gradients {100 * exchange / wall:.1f} %, tick {1e3 * word:.2f} ms ({1e3 * tick / steps:.2f} ms with waiting for the other rank's batch)")
PY
