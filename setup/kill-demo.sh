#!/usr/bin/env bash
# Shows that a killed demo is the undisturbed demo: trains the demo again in a folder beside it, kills it with -9 at five random moments,
# restarts it each time, and compares metrics.jsonl with that of the run that `make demo` made, but for the fields that tell time.
#   setup/kill-demo.sh                    SplitMask: runs/demo
#   OBJECTIVE=mae setup/kill-demo.sh      another: runs/demo-mae, made by `make demo OBJECTIVE=mae`
set -euo pipefail
cd "$(dirname "$0")/.."
splitmask=${CARGO_TARGET_DIR:-target}/debug/splitmask
objective=${OBJECTIVE:-splitmask} config=configs/demo.toml run=runs/demo
if [ "$objective" != splitmask ]; then
  config=configs/$objective-demo.toml run=runs/demo-$objective
fi
[ -e "$run/metrics.jsonl" ] || { echo "run \`make demo OBJECTIVE=$objective\` first: there is no $run/metrics.jsonl" >&2; exit 64; }
killed=$run-killed
rm -rf "$killed"
# `exec`, so that the process that is killed is the trainer and not a shell around it.
train() { exec "$splitmask" train --config "$config" --set run.dir="$killed" --set 'admin.bind=""' --set checkpoint.every_steps=25; }
for kill in 1 2 3 4 5; do
  train >/dev/null 2>&1 & pid=$!
  pause=$((RANDOM % 40 + 10))
  sleep $pause
  kill -9 "$pid"; wait "$pid" 2>/dev/null || true
  echo "kill $kill after $pause s, at step $(tail -n 1 "$killed/metrics.jsonl" 2>/dev/null | sed -E 's/.*"step":([0-9]+).*/\1/')"
done
(train) >/dev/null 2>&1
python3 - "$run" "$killed" <<'PY'
import json
import sys
timing = ("time", "images_per_second", "data_wait_ratio", "rank_step_seconds", "seconds")
def trace(run):
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in open(f"{run}/metrics.jsonl")]
a, b = trace(sys.argv[1]), trace(sys.argv[2])
if a != b:
    step = next((x["step"] for x, y in zip(a, b) if x != y), "the end")
    raise SystemExit(f"the traces differ from step {step} on")
print(f"{len(a)} lines up to step {a[-1]['step']}: identical in every bit")
PY
