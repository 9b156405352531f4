"""A small run for checks of several ranks: drawn pictures in shards, a config that takes some milliseconds a step, and what is compared behind it."""

import hashlib
import json
from pathlib import Path

from bad_store import draw
from program import splitmask

# Fields of metrics.jsonl that tell time, as src/trainer/metrics_log.rs has them.
TIMING = ("time", "images_per_second", "data_wait_ratio", "rank_step_seconds", "seconds")

CONFIG = """[run]
name = "small"
dir = "{folder}/run"
seed = 3
[data]
train = "{folder}/data/train"
shuffle_window = 48
[model]
size = "nano"
image = 32
patch = 8
width = 32
depth = 2
heads = 2
[objective]
kind = "mae"
[objective.decoder]
layers = 1
width = 32
heads = 2
[optim]
lr = 1e-3
warmup_steps = 10
total_steps = {steps}
[train]
batch = 16
precision = "f32"
device = "cpu"
threads = 1
[pipeline]
workers = 1
[checkpoint]
every_steps = {checkpoint_every}
keep = 2
[picture]
every_steps = 0
[log]
every_steps = 1
[admin]
bind = ""
"""


def make(folder: Path, steps: int, checkpoint_every: int = 50) -> Path:
    """Shards and config in a folder; the config."""
    draw(folder / "pictures", 40)
    splitmask("pack", str(folder / "pictures"), str(folder / "data"), "--shard-size", "100KiB", capture=True)
    config = folder / "c.toml"
    config.write_text(CONFIG.format(folder=folder, steps=steps, checkpoint_every=checkpoint_every))
    return config


def trace(run: Path) -> list[dict]:
    """The lines of a run without the fields that tell time."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k not in TIMING} for line in lines if line.endswith("}")]


def weights(run: Path) -> str:
    """The digest of the newest checkpoint's weights."""
    newest = max(p for p in (run / "checkpoints").iterdir() if p.name.startswith("step-"))
    return f"{newest.name}:{hashlib.sha256((newest / 'model.safetensors').read_bytes()).hexdigest()}"


def same(want: Path, have: Path) -> None:
    """Fails unless both runs have the same lines and the same weights at their end."""
    a, b = trace(want), trace(have)
    for x, y in zip(a, b):
        if x != y:
            raise SystemExit(f"the losses differ at step {x['step']}:\n{x}\n{y}")
    if len(a) != len(b):
        raise SystemExit(f"{len(a)} lines undisturbed, {len(b)} of the run")
    if weights(want) != weights(have):
        raise SystemExit(f"other weights: {weights(want)} undisturbed, {weights(have)}")
    print(f"the same {len(a)} lines and the same weights as undisturbed", flush=True)
