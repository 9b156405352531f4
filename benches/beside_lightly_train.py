#!/usr/bin/env python3
"""lightly-train beside splitmask: the same pictures, encoder, processor time and judge; the tables of docs/comparison.md.

    benches/beside_lightly_train.py SHARDS --splitmask target/debug/splitmask [--minutes 5] [--seeds 0,1,2] [--methods simclr,dino] [--sides A,B] [--work FOLDER] [--table]

SHARDS holds train/ and val/ of `splitmask pack` (data/emoji or data/drawings of `make results TABLE=family`). Needs Python with lightly-train 0.18, timm,
safetensors and torch 2.11. Both train the demo's encoder (64 px, patches of 8, 6 layers of 128, 2 heads) with batches of 128 in f32 on one thread
with one worker: ours with configs/simclr-demo.toml and configs/dino-demo.toml, theirs once as its defaults have it (SGD, wide heads, schedules made for
ImageNet) and once `fitted` with our optimizer, rate, head, temperatures, momentum and decay, but its own views, warm-up and last rate; for as much processor
time: what a step or an epoch costs is measured first, and start-up counts. Processor time and not the clock's, so that other work on the machine changes
little. One k-NN of timm's encoder in Python judges both exports, by the mean of the patches, through which lightly-train learns here, and by the class token,
through which splitmask learns. The numbers of a run are kept in docs/results/beside-lightly-train.json, by set, minutes, side, method and seed, with the
commit that made them; what is there is not trained again.
"""
import argparse
import glob
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path

BATCH, SIDE = 128, 64
ENCODER = {"img_size": SIDE, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 2}
PICTURES = ("png", "jpg", "jpeg", "webp")
FITTED_SIDE = "lightly-train-fitted"
SIDES = ("ours", "lightly-train", FITTED_SIDE)
KEPT = Path("docs/results/beside-lightly-train.json")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def samples(folder: Path):
    """Bytes, extension and label of each sample of a folder's shards."""
    for shard in sorted(glob.glob(f"{folder}/*.tar")):
        found = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()
        for parts in found.values():
            extension = next(e for e in parts if e in PICTURES)
            yield parts[extension], extension, int(parts["cls"]) if "cls" in parts else -1


def unpacked(args) -> Path:
    """The training pictures as files, which is what lightly-train reads."""
    folder = args.work / f"{args.shards.name}-pictures"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        for data, extension, _ in samples(args.shards / "train"):
            (folder / f"{count:06}.{extension}").write_bytes(data)
            count += 1
        (folder / "complete").write_text(str(count))
    return folder


def cost(command: list, **more) -> float:
    """Seconds of processor time of a program and its children."""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before = used()
    subprocess.run(command, check=True, env=os.environ | ONE_THREAD, **more)
    return used() - before


def theirs(side: str, method: str, epochs: int, seed: int, pictures: Path, out: Path) -> float:
    return cost([sys.executable, __file__, "--lightly", side, method, str(epochs), str(seed), str(pictures), str(out)], stdout=subprocess.DEVNULL)


# The settings of our two recipes in their words.
FITTED = {
    "simclr": {"hidden_dim": 512, "output_dim": 128, "num_layers": 3, "temperature": 0.2},
    "dino": {
        "hidden_dim": 512, "bottleneck_dim": 128, "output_dim": 1024, "teacher_temp": 0.02, "warmup_teacher_temp": 0.02,
        "student_temp": 0.05, "momentum_start": 0.99,
        "weight_decay_start": 0.04, "weight_decay_end": 0.4,
    },
}  # fmt: skip
RATE, WEIGHT_DECAY = 1e-3, {"simclr": 0.05, "dino": 0.04}


def fitted(method: str, steps: int) -> dict:
    """Arguments of lightly-train that bring our settings; it multiplies a rate by what it makes of the batch."""
    from lightly_train._methods.dino.dino import DINOArgs
    from lightly_train._methods.simclr.simclr import SimCLRArgs

    default = lambda key: {"simclr": SimCLRArgs, "dino": DINOArgs}[method].model_fields[key].default
    scale = BATCH / default("reference_batch_size")
    scale = scale**0.5 if default("lr_scale_method") == "sqrt" else scale
    freeze = {"student_freeze_last_layer_steps": max(1, steps // 20)} if method == "dino" else {}
    return {"optim": "adamw", "optim_args": {"lr": RATE / scale, "weight_decay": WEIGHT_DECAY[method]}, "method_args": FITTED[method] | freeze}


def lightly(side: str, method: str, epochs: str, seed: str, pictures: str, out: str) -> None:
    """Trains by lightly-train, in a process of its own."""
    import lightly_train
    import torch

    torch.set_num_threads(1)
    views = {"image_size": (SIDE, SIDE)}
    if method == "dino":
        views["local_view"] = {"num_views": 4, "view_size": (SIDE // 2, SIDE // 2)}
    steps = int(epochs) * (int((Path(pictures) / "complete").read_text()) // BATCH)
    more = fitted(method, steps) if side == FITTED_SIDE else {}
    lightly_train.pretrain(
        **more, out=out, data=pictures, model="timm/vit_tiny_patch16_224", model_args=ENCODER, method=method, epochs=int(epochs), batch_size=BATCH,
        num_workers=1, accelerator="cpu", devices=1, overwrite=True, precision="32-true", seed=int(seed), transform_args=views,
    )  # fmt: skip


def ours(args, method: str, steps: int, seed: int, out: Path) -> float:
    # A run that was stopped would go on, and cost less than all of it.
    shutil.rmtree(out, ignore_errors=True)
    # fmt: off
    sets = [f"run.dir={out}", f"run.name={out.name}", f"run.seed={seed}", f"data.train={args.shards}/train", f"data.val={args.shards}/val",
            f"optim.total_steps={steps}", f"optim.warmup_steps={max(1, steps // 8)}", "train.precision=f32", "train.threads=1", "train.device=cpu",
            "admin.bind=", "admin.lifecycle=false", "eval.every_steps=0", "eval.spread_every_steps=0", "picture.every_steps=0", "log.every_steps=20"]
    # fmt: on
    if method == "dino":
        sets.append(f"objective.freeze_last_layer_steps={max(1, steps // 20)}")
    return cost([args.splitmask, "train", "--config", f"configs/{method}-demo.toml", *(x for s in sets for x in ("--set", s))], stderr=subprocess.DEVNULL)


def priced(file: Path, trial, few: int, more: int) -> tuple:
    """Processor seconds of a start and of a unit (step or epoch), from two short trainings."""
    if not file.exists():
        short, long = trial(few), trial(more)
        unit = (long - short) / (more - few)
        file.write_text(json.dumps({"unit": unit, "start": max(0.0, short - few * unit)}))
    found = json.loads(file.read_text())
    return found["start"], found["unit"]


def kept() -> dict:
    return json.loads(KEPT.read_text()) if KEPT.exists() else {}


def keep(name: str, record: dict) -> None:
    # Read again: another call may have written meanwhile.
    records = kept() | {name: record}
    KEPT.write_text("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(records[key])}" for key in sorted(records)) + "\n}\n")


def trained(args, side: str, method: str, seed: int) -> dict:
    """Numbers of one training, which is made if it is not there."""
    name = f"{args.shards.name}-{args.minutes:g}min-{side}-{method}-s{seed}"
    if name in kept():
        return kept()[name]
    say(name)
    folder = args.work / name
    pictures = unpacked(args)
    count = int((pictures / "complete").read_text())
    price = args.work / f"{args.shards.name}-{side}-{method}-price.json"
    trial = lambda units: args.work / f"{args.shards.name}-{side}-{method}-trial-{units}"
    if side == "ours":
        start, unit = priced(price, lambda n: ours(args, method, n, 0, trial(n)), 5, 15)
        units = max(1, round((60 * args.minutes - start) / unit))
        used, images = ours(args, method, units, seed, folder), units * BATCH
        weights = args.work / f"{name}-timm"
        export = [args.splitmask, "export", str(folder), "--format", "timm", "--out", str(weights), "--force"]
        subprocess.run(export, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        weights /= "model.safetensors"
    else:
        start, unit = priced(price, lambda n: theirs(side, method, n, 0, pictures, trial(n)), 1, 2)
        units = max(1, round((60 * args.minutes - start) / unit))
        used, images = theirs(side, method, units, seed, pictures, folder), units * (count // BATCH * BATCH)
        weights = folder / "exported_models" / "exported_last.pt"
    git = lambda *arguments: subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    commit = git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    found = {"processor_seconds": used, "start_seconds": start, "images": images, "commit": commit} | judged(args.shards, weights)
    keep(name, found)
    return found


def judged(shards: Path, weights) -> dict:
    """k-NN (k 20, cosine, temperature 0.07) of an encoder over the classes of at least 16 training pictures; None: at random initialisation."""
    import numpy as np
    import timm
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from safetensors.torch import load_file

    def split(name):
        pixels, labels = [], []
        for data, _, label in samples(shards / name):
            if label >= 0:
                image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)
                pixels.append(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1))
                labels.append(label)
        return torch.stack(pixels).float() / 255, torch.tensor(labels)

    names, others = (json.loads((shards / s / "manifest.json").read_text())["classes"] for s in ("train", "val"))
    (xt, yt), (xv, yv) = split("train"), split("val")
    # Classes are matched by name; a class that one side lacks is left out.
    place = torch.tensor([names.index(n) if n in names else -1 for n in others])
    yv = place[yv]
    frequent = torch.bincount(yt, minlength=len(names)) >= 16
    xt, yt = xt[frequent[yt]], yt[frequent[yt]]
    wanted = (yv >= 0) & frequent[yv.clamp(min=0)]
    xv, yv = xv[wanted], yv[wanted]
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ENCODER).eval()
    if weights is not None:
        state = load_file(weights) if str(weights).endswith(".safetensors") else torch.load(weights, weights_only=True)
        left = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
        assert all(k.startswith("head.") for k in left.missing_keys + left.unexpected_keys), left
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        train, val = (torch.cat([model.forward_features((b - mean) / std) for b in x.split(256)]) for x in (xt, xv))

    def knn(a, b):
        similarity, nearest = (F.normalize(b, dim=1) @ F.normalize(a, dim=1).T).topk(20, 1)
        votes = torch.zeros(len(b), len(names)).scatter_add_(1, yt[nearest], (similarity / 0.07).exp())
        return (votes.argmax(1) == yv).float().mean().item()

    pools = {"mean": lambda x: x[:, 1:].mean(1), "class token": lambda x: x[:, 0]}
    return {"queries": len(xv), "references": len(xt), "classes": int(frequent.sum())} | {name: knn(of(train), of(val)) for name, of in pools.items()}


def say(text: str) -> None:
    print(f"[beside] {text}", file=sys.stderr, flush=True)


def spread(values: list) -> str:
    mean = 100 * statistics.mean(values)
    return f"{mean:.1f} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def main() -> None:
    if sys.argv[1:2] == ["--lightly"]:
        return lightly(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=lambda text: Path(text).resolve())
    parser.add_argument("--splitmask", required=True, type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--minutes", default=5.0, type=float, help="processor minutes of a training (default: 5)")
    parser.add_argument("--seeds", default=[0, 1, 2], type=lambda text: [int(s) for s in text.split(",")])
    parser.add_argument("--methods", default=["simclr", "dino"], type=lambda text: text.split(","))
    parser.add_argument("--sides", default=list(SIDES), type=lambda text: text.split(","), help=f"of {','.join(SIDES)} (default: all)")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is kept of this set and these minutes")
    parser.add_argument("--work", default=Path("runs/beside-lightly-train"), type=Path, help="where the runs go (default: runs/beside-lightly-train)")
    args = parser.parse_args()
    if wrong := [*(set(args.sides) - set(SIDES)), *(set(args.methods) - set(FITTED))]:
        parser.error(f"{', '.join(wrong)}: sides are {', '.join(SIDES)}, methods {', '.join(FITTED)}")
    os.chdir(Path(__file__).resolve().parent.parent)
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.table:
        if f"{args.shards.name}-random" not in kept():
            keep(f"{args.shards.name}-random", judged(args.shards, None))
        # Seed by seed, so that a call that is stopped has compared whole rows.
        for seed in args.seeds:
            for method in args.methods:
                for side in args.sides:
                    trained(args, side, method, seed)
    table(args)


def table(args) -> None:
    """What is kept of a set and a time, whatever seeds it has."""
    records = kept()
    random = records[f"{args.shards.name}-random"]
    print(f"{random['references']} labelled training and {random['queries']} validation pictures of {random['classes']} classes, {args.minutes:g} minutes of processor time a training:\n")
    columns = ["", "seeds", "processor seconds", "images a second after the start", "images seen", "k-NN, mean of the patches (%)", "k-NN, class token (%)"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    print(f"| random initialisation | 1 | 0 | | 0 | {100 * random['mean']:.1f} | {100 * random['class token']:.1f} |")
    for method in args.methods:
        for side in args.sides:
            begin = f"{args.shards.name}-{args.minutes:g}min-{side}-{method}-s"
            runs = [record for name, record in records.items() if name.startswith(begin)]
            if not runs:
                continue
            mean = lambda of: statistics.mean(of(r) for r in runs)
            speed = mean(lambda r: r["images"] / (r["processor_seconds"] - r["start_seconds"]))
            # What a side learnt by is in bold.
            patches, token = (spread([r[feature] for r in runs]) for feature in ("mean", "class token"))
            patches, token = (patches, f"**{token}**") if side == "ours" else (f"**{patches}**", token)
            cells = [f"{method}, {side}", len(runs), f"{mean(lambda r: r['processor_seconds']):.0f}", f"{speed:.0f}", f"{mean(lambda r: r['images']):,.0f}", patches, token]
            print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
