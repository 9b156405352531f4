#!/usr/bin/env python3
"""What fine-tuning and judging cost beside the tools that people take for them, in turns in one run; tables of medians.

    benches/beside_transfer_tools.py step       --splitmask target/debug/splitmask      a fine-tuning step of ViT-S/16 beside timm's in eager PyTorch
    benches/beside_transfer_tools.py pipeline SHARDS                                    RandAugment's pipeline beside timm's transforms
    benches/beside_transfer_tools.py judge                                              average precision beside pycocotools

step: configs/finetune.toml (mixup, CutMix, smoothing, drop path, layer decay), f32, on noise; timm's model, Mixup, SoftTargetCrossEntropy and optimiser
with layer decay, fused AdamW. pipeline: SHARDS of photographs or drawings as tar files; random crop 224, flip, rand-m9-mstd0.5-inc1, bytes as they go to
a device. judge: pictures and detections that are drawn by chance, written as COCO's files; reading them is part of the time, starting Python is not.

One thread and one core (`taskset` of Linux). Needs torch 2.11 (CPU will do), timm, pillow and, for judge, pycocotools in the Python that runs this.
"""
import argparse
import contextlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from objective_steps import timed

SIDE, CLASSES = 224, 100
# The recipe of ours, and what it lacks for a step without data.
RECIPE = ["run.init_from=", f"model.image={SIDE}", f"objective.classes={CLASSES}", "train.precision=f32", "train.threads=1", "train.device=cpu"]


def timm_step(batch: int, seconds: float) -> dict:
    import timm
    import torch
    from timm.data import Mixup
    from timm.loss import SoftTargetCrossEntropy
    from timm.optim import create_optimizer_v2

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", num_classes=CLASSES, global_pool="avg", drop_path_rate=0.1).train()
    optim = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.65, fused=True)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=CLASSES)
    loss_of = SoftTargetCrossEntropy()
    images, labels = torch.randn(batch, 3, SIDE, SIDE), torch.randint(CLASSES, (batch,))

    def step():
        x, targets = mixup(images.clone(), labels)
        optim.zero_grad(set_to_none=True)
        loss_of(model(x), targets).backward()
        optim.step()

    return timed(step, seconds)


def our_step(args) -> dict:
    command = [args.splitmask, "bench", "step", "configs/finetune.toml", "--batch", str(args.batch), "--seconds", str(args.seconds), "--json"]
    done = run([*command, *(x for s in RECIPE for x in ("--set", s))])
    return json.loads(done)["steps"][0]


def pictures(shards: str, number: int):
    """Bytes of pictures, as they lie in the shards; again from the first one on where there are too few."""
    files, seen = sorted(Path(shards).glob("*.tar")), 0
    while seen < number:
        before = seen
        for file in files:
            with tarfile.open(file, "r|") as tar:
                for member in tar:
                    if member.name.rsplit(".")[-1] in ("jpg", "jpeg", "png", "webp"):
                        yield tar.extractfile(member).read()
                        seen += 1
                        if seen == number:
                            return
        if seen == before:
            sys.exit(f"{shards}: no pictures in tar files")


def timm_pipeline(shards: str, number: int) -> dict:
    from PIL import Image, ImageOps
    from timm.data import create_transform

    # Pillow 13 refuses no bits at all, which timm 1.0 sometimes asks for.
    posterize = ImageOps.posterize
    ImageOps.posterize = lambda image, bits: posterize(image, max(1, bits))
    through = create_transform(SIDE, is_training=True, use_prefetcher=True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic", color_jitter=None)
    random.seed(0)
    began = time.perf_counter()
    for picture in pictures(shards, number):
        through(Image.open(io.BytesIO(picture)).convert("RGB"))
    return {"ips": number / (time.perf_counter() - began)}


def our_pipeline(args) -> dict:
    sets = [f"data.train={args.shards}", "train.batch=128", f"model.image={SIDE}", "objective.classes=1000"]
    command = [args.splitmask, "bench", "pipeline", "configs/finetune.toml", "--level", "batch", "--threads", "1", "--images", str(args.images), "--json"]
    done = json.loads(run([*command, *(x for s in sets for x in ("--set", s))]).splitlines()[-1])
    return {"ips": done["ips"]}


def drawn_by_chance(folder: Path, number: int, masks: bool) -> None:
    """COCO's files: truth, and a hundred detections of each picture, some of them near an object. Masks are ellipses, as uncompressed runs."""
    draw = random.Random(0)
    width, height, classes = 640, 480, 80

    def box():
        w, h = 8 + draw.random() ** 2 * 400, 8 + draw.random() ** 2 * 300
        return [draw.random() * (width - w), draw.random() * (height - h), w, h]

    def runs(x, y, w, h):
        counts, last = [], 0
        for column in range(int(x), min(int(x + w) + 1, width)):
            across = 2 * (column + 0.5 - x) / w - 1
            half = h / 2 * max(0.0, 1 - across * across) ** 0.5
            top, end = max(0, int(y + h / 2 - half)), min(height, int(y + h / 2 + half))
            if end > top:
                counts += [column * height + top - last, end - top]
                last = column * height + end
        return {"size": [height, width], "counts": [*counts, width * height - last]}

    images, annotations, results = [], [], []
    for image in range(1, number + 1):
        images.append({"id": image, "width": width, "height": height, "file_name": f"{image}.jpg"})
        here = [(box(), draw.randint(1, classes)) for _ in range(draw.randint(1, 14))]
        for corners, kind in here:
            outline = {"segmentation": runs(*corners)} if masks else {}
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": kind, "bbox": corners, "area": corners[2] * corners[3], "iscrowd": 0, **outline})
        for n in range(100):
            corners, kind = box(), draw.randint(1, classes)
            if n < 2 * len(here):
                (x, y, w, h), kind = here[n // 2]
                corners = [max(0.0, x + draw.gauss(0, w / 10)), max(0.0, y + draw.gauss(0, h / 10)), w, h]
            one = {"segmentation": runs(*corners)} if masks else {"bbox": corners}
            results.append({"image_id": image, "category_id": kind, "score": draw.random(), **one})
    categories = [{"id": n, "name": f"kind {n}"} for n in range(1, classes + 1)]
    (folder / "truth.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    (folder / "results.json").write_text(json.dumps(results))


def pycocotools_judge(folder: str, of: str) -> dict:
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(f"{folder}/truth.json")
        found = json.loads(Path(f"{folder}/results.json").read_text())
        for one in found:
            # Its results must be compressed runs.
            if "segmentation" in one:
                one["segmentation"] = mask.frPyObjects(one["segmentation"], *one["segmentation"]["size"])
        judge = COCOeval(truth, truth.loadRes(found), "segm" if of == "masks" else "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {"s": time.perf_counter() - began, "precision": judge.stats[0]}


def our_judge(args, folder: str, of: str) -> dict:
    began = time.perf_counter()
    told = json.loads(run([args.splitmask, "eval", "detections", f"{folder}/truth.json", f"{folder}/results.json", "--of", of, "--json"]))
    return {"s": time.perf_counter() - began, "precision": precision(told)}


def precision(told: dict) -> float:
    """The first number of that name, wherever it stands."""
    if "precision" in told and isinstance(told["precision"], float):
        return told["precision"]
    return next(precision(inner) for inner in told.values() if isinstance(inner, dict))


def run(command: list) -> str:
    quiet = {**os.environ, **{k: "1" for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}}
    done = subprocess.run(["taskset", "-c", CORE, *command], capture_output=True, text=True, env=quiet, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


def theirs(args, *more: str) -> dict:
    """This file's other side, in a process of its own."""
    own = ["--batch", str(args.batch), "--seconds", str(args.seconds), "--images", str(args.images)]
    return json.loads(run([sys.executable, os.path.abspath(__file__), args.what, *([args.shards] if args.shards else []), *own, "--theirs", *more]))


def in_turns(args, name: str, unit: str, key: str, ours, others) -> tuple:
    mine, their = [], []
    for turn in range(args.rounds):
        print(f"{name}: round {turn + 1} of {args.rounds}", file=sys.stderr, flush=True)
        mine.append(ours())
        their.append(others())
    ratios = [a[key] / b[key] for a, b in zip(mine, their)]
    middle = lambda rows: statistics.median(row[key] for row in rows)
    print(f"| {name} | {middle(mine):.4g} {unit} | {middle(their):.4g} {unit} | {statistics.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)}) |")
    return mine, their


def main() -> None:
    global CORE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["step", "pipeline", "judge"])
    parser.add_argument("shards", nargs="?", help="pipeline: folder of tar files with pictures (`splitmask pack`)")
    parser.add_argument("--splitmask", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "debug", "splitmask"))
    parser.add_argument("--rounds", default=3, type=int, help="turns (default: 3)")
    parser.add_argument("--batch", default=8, type=int, help="step: images, an even number (default: 8)")
    parser.add_argument("--seconds", default=20.0, type=float, help="step: of steps, behind the warm-up (default: 20)")
    parser.add_argument("--images", default=1000, type=int, help="pipeline, judge: pictures (default: 1000)")
    parser.add_argument("--core", default="0", help="the core that all is pinned to (default: 0)")
    parser.add_argument("--theirs", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    CORE = args.core
    if args.what == "pipeline" and not args.shards:
        parser.error("pipeline needs SHARDS, a folder of `splitmask pack`")
    args.splitmask, args.shards = os.path.abspath(args.splitmask), args.shards and os.path.abspath(args.shards)
    if args.theirs is not None:
        sides = {"step": lambda: timm_step(args.batch, args.seconds), "pipeline": lambda: timm_pipeline(args.shards, args.images), "judge": lambda: pycocotools_judge(*args.theirs)}
        return print(json.dumps(sides[args.what]()))
    os.chdir(Path(__file__).resolve().parent.parent)
    print("| what | ours | theirs | ratio (of each round) |\n| --- | --- | --- | --- |")
    if args.what == "step":
        mine, their = in_turns(args, f"fine-tuning step, ViT-S/16, batch {args.batch}", "ms", "ms", lambda: our_step(args), lambda: theirs(args))
        peak = lambda rows: statistics.median(row["peak_memory_mb"] for row in rows)
        return print(f"\npeak memory: {peak(mine):.0f} MB, timm {peak(their):.0f} MB")
    if args.what == "pipeline":
        in_turns(args, "crop, flip, RandAugment", "images/s", "ips", lambda: our_pipeline(args), lambda: theirs(args))
        return None
    for of in "boxes", "masks":
        with tempfile.TemporaryDirectory() as folder:
            drawn_by_chance(Path(folder), args.images, of == "masks")
            mine, their = in_turns(args, f"precision of {of}, {args.images} pictures", "s", "s", lambda: our_judge(args, folder, of), lambda: theirs(args, folder, of))
            apart = abs(mine[0]["precision"] - their[0]["precision"])
            if apart > 1e-9:
                sys.exit(f"the two differ by {apart}: {mine[0]['precision']}, pycocotools {their[0]['precision']}")
    return None


if __name__ == "__main__":
    main()
