#!/usr/bin/env bash
# How much faster two ranks of one thread are than one, on this machine's processors: ViT-Ti/8 (64 px), 64 images a rank, f32, in turns. Prints images/s,
# the share of a step in which each rank only waits for the other, and the time in the tick; and beside them two runs of one rank that know nothing of each
# other: what the two cores can give, and twice the slower one of them, which is what two can give that wait for each other at each step.
# Needs two quiet cores (CORES="2 3" takes others) and shards.
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
begin() { # begin NAME RANK WORLD CORE PORT PAGE: one process; its number is the last of ids
  RANK=$2 WORLD_SIZE=$3 MASTER_ADDR=127.0.0.1 MASTER_PORT=$5 taskset -c "$4" "$program" train --config "$work/c.toml" --set "run.dir=\"$work/$1\"" \
    --set "train.batch=$((64 * $3))" --set "admin.bind=\"127.0.0.1:$6\"" >"$work/$1-$2.log" 2>&1 &
  ids+=($!)
}
finish() { # finish NAME PAGE
  # The last scrapes before the end: what the counters came to. Rare and by curl, for whatever asks takes its time from a rank's core.
  while kill -0 "${ids[0]}" 2>/dev/null; do
    for ((n = 0; n < ${#ids[@]}; n++)); do
      if curl -s --max-time 2 "http://127.0.0.1:$(($2 + n))/metrics" >"$work/scrape" && grep -q splitmask_train_steps_total "$work/scrape"; then
        mv "$work/scrape" "$work/$1-$n.metrics"
      fi
    done
    sleep 4
  done
  for id in "${ids[@]}"; do wait "$id" || { cat "$work/$1"*.log >&2; exit 70; }; done
  ids=()
}
ids=()
for ((round = 1; round <= rounds; round++)); do
  port=$((20000 + RANDOM % 9000))
  begin "one-$round" 0 1 "${cores[0]}" $port $((port + 1)); finish "one-$round" $((port + 1))
  for side in 0 1; do begin "apart-$round-$side" 0 1 "${cores[side]}" $port $((port + 1 + side)); done; finish "apart-$round" $((port + 1))
  for rank in 0 1; do begin "two-$round" $rank 2 "${cores[rank]}" $port $((port + 1 + rank)); done; finish "two-$round" $((port + 1))
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
sides = [[speed(f"apart-{r}-{side}") for side in (0, 1)] for r in range(1, rounds + 1)]
apart, slower = [sum(both) for both in sides], [2 * min(both) for both in sides]
for name, found in ("one rank", one), ("two runs apart", apart), ("twice the slower", slower), ("two ranks", two):
    print(f"images/s, {name + ':':17} " + " ".join(f"{x:.1f}" for x in found))
ratio = lambda above, below: statistics.median(a / b for a, b in zip(above, below))
print(f"medians of the rounds: two ranks {ratio(two, one):.3f} of one; two runs apart {ratio(apart, one):.3f} of one; two ranks {ratio(two, apart):.3f} of two runs apart, {ratio(two, slower):.3f} of twice the slower")
for r in range(1, rounds + 1):
    name = f"two-{r}-0"
    steps = metric(name, "splitmask_train_step_duration_seconds_count")
    wall = metric(name, "splitmask_train_step_duration_seconds_sum")
    waiting = [100 * metric(f"two-{r}-{n}", "splitmask_ranks_exchange_seconds_total") / wall for n in (0, 1)]
    tick = metric(name, "splitmask_ranks_tick_seconds_total")
    word = metric(name, "splitmask_ranks_tick_message_seconds_total") / metric(name, "splitmask_ranks_ticks_total")
    print(f"round {r}: step {1e3 * wall / steps:.1f} ms, waiting in steps {waiting[0]:.1f} and {waiting[1]:.1f} %, tick {1e3 * word:.2f} ms ({1e3 * tick / steps:.2f} ms with waiting for the other rank's batch)")
PY
