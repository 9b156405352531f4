#!/usr/bin/env python3
"""Other loaders beside ours, in one interleaved run: images a second on one core (and two), medians, lowest and highest.

    benches/peers.py SHARDS [--codebook words.safetensors] [--floor PROGRAM] [--rounds 5] [--images 1536] [--core 1] [--two] [--only NAME,…]

SHARDS is a folder of tar files with photographs as .jpg. Each loader is set up as its documentation says, one worker, batches of 128:
  L2   random resized crop to 224 (area 0.08 to 1), flip, bytes
  L3   L2, then jitter of brightness, contrast and saturation by 0.4, normalised f32
  batch (ours)   the paper's augmentation, visual words and masks; needs --codebook
`--floor` names a program that is called with SHARDS and prints
"… images/s" last (a lower bound: one region decode and one resize, files already in memory).

Set-up: python3 -m venv peers; peers/bin/pip install torch==2.11.0 torchvision==0.26.0 webdataset opencv-python-headless albumentationsx
nvidia-dali-cuda130 pillow numpy; cargo build; then run this file by peers/bin/python. A loader that is not installed is an error.
"""

import argparse
import glob
import io
import json
import os
import re
import statistics
import subprocess
import sys
import time

MEAN, STD, SIDE, BATCH = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 224, 128
# (name, level, interpolation) of the loaders of others.
PEERS = [
    ("opencv", "L2", "bilinear"),
    ("opencv", "L3", "bilinear"),
    ("torchvision", "L2", "bicubic"),
    ("torchvision", "L3", "bilinear"),
    ("dali", "L2", "bicubic"),
    ("dali", "L3", "bilinear"),
    ("pil", "L2", "bicubic"),
    ("pil", "L3", "bilinear"),
]


def per_image(name, level, interpolation):
    """bytes of a JPEG → tensor, for the loaders that are a function of one image."""
    import numpy as np
    import torch
    from PIL import Image

    if name == "opencv":
        import albumentations as A
        import cv2

        cv2.setNumThreads(0)
        steps = [
            A.RandomResizedCrop(size=(SIDE, SIDE), scale=(0.08, 1), interpolation=cv2.INTER_LINEAR),
            A.HorizontalFlip(p=0.5),
        ]
        if level == "L3":
            span = (0.6, 1.4)
            steps += [A.ColorJitter(brightness=span, contrast=span, saturation=span, hue=(0, 0), p=1), A.Normalize(MEAN, STD)]
        compose = A.Compose(steps)

        def through(jpeg):
            image = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            return torch.from_numpy(np.ascontiguousarray(compose(image=image)["image"].transpose(2, 0, 1)))

        return through

    pil = lambda jpeg: Image.open(io.BytesIO(jpeg)).convert("RGB")
    if name == "pil":
        from torchvision import transforms as T

        mode = T.InterpolationMode(interpolation)
        steps = [T.RandomResizedCrop(SIDE, interpolation=mode), T.RandomHorizontalFlip()]
        steps += [T.PILToTensor()] if level == "L2" else [T.ColorJitter(0.4, 0.4, 0.4), T.ToTensor(), T.Normalize(MEAN, STD)]
        compose = T.Compose(steps)
        return lambda jpeg: compose(pil(jpeg))

    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    mode = v2.InterpolationMode(interpolation)
    steps = [v2.RandomResizedCrop(SIDE, interpolation=mode, antialias=True), v2.RandomHorizontalFlip()]
    if level == "L3":
        steps += [v2.ColorJitter(0.4, 0.4, 0.4), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    compose = v2.Compose(steps)

    def through(jpeg):
        try:
            image = decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), mode=ImageReadMode.RGB)
        except RuntimeError:  # CMYK
            image = torch.from_numpy(np.array(pil(jpeg))).permute(2, 0, 1)
        return compose(image).contiguous()

    return through


def webdataset_batches(shards, name, level, interpolation):
    """Sizes of batches; 0 once everything is set up."""
    import torch
    import webdataset as wds

    torch.set_num_threads(1)
    through = per_image(name, level, interpolation)
    data = wds.WebDataset(shards, shardshuffle=False, empty_check=False).to_tuple("jpg").map_tuple(through)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, num_workers=0)
    yield 0
    for (batch,) in loader:
        yield len(batch)


def dali_batches(shards, level, interpolation):
    """As `webdataset_batches`."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=1, device_id=None, seed=1)
    def pipeline():
        jpeg = fn.readers.webdataset(paths=shards, ext=["jpg"])
        image = fn.decoders.image_random_crop(
            jpeg, device="cpu", output_type=types.RGB, random_area=[0.08, 1.0], random_aspect_ratio=[0.75, 4 / 3], num_attempts=10
        )
        mode = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}[interpolation]
        image = fn.resize(image, size=[SIDE, SIDE], interp_type=mode, antialias=True)
        mirror = fn.random.coin_flip()
        if level == "L2":
            return fn.flip(image, horizontal=mirror)
        draw = lambda: fn.random.uniform(range=[0.6, 1.4])
        image = fn.color_twist(image, brightness=draw(), contrast=draw(), saturation=draw())
        mean, std = ([255 * v for v in values] for values in (MEAN, STD))
        return fn.crop_mirror_normalize(image, mirror=mirror, dtype=types.FLOAT, output_layout="CHW", mean=mean, std=std)

    pipe = pipeline()
    pipe.build()
    pipe.run()
    yield 0
    while True:
        yield len(pipe.run()[0])


def one(spec):
    """Child process: one loader, one level; prints images/s."""
    name, level, interpolation, images, folder = spec.split("|")
    shards = sorted(glob.glob(f"{folder}/*.tar"))
    batches = dali_batches(shards, level, interpolation) if name == "dali" else webdataset_batches(shards, name, level, interpolation)
    next(batches)
    seen, start = 0, time.perf_counter()
    for size in batches:
        seen += size
        if seen >= int(images):
            break
    print(json.dumps({"ips": seen / (time.perf_counter() - start)}), flush=True)
    os._exit(0)


def speed(text):
    """images/s that a program printed: `ips` of its JSON, or the last "… images/s"."""
    answers = [line for line in text.splitlines() if line.startswith("{")]
    return json.loads(answers[-1])["ips"] if answers else float(re.findall(r"([\d.]+) images/s", text)[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("--splitmask", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "debug", "splitmask"))
    parser.add_argument("--codebook")
    parser.add_argument("--floor")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1536)
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--two", action="store_true", help="a second series on two cores, ours only")
    parser.add_argument("--only", default="", help="names, separated by commas")
    args = parser.parse_args()

    for program in [args.splitmask] + [args.floor] * bool(args.floor):
        if not os.access(program, os.X_OK):
            sys.exit(f"{program}: no such program. Build it (`cargo build`), or name it with --splitmask or --floor.")
    if not glob.glob(f"{args.shards}/*.tar"):
        sys.exit(f"{args.shards}: no .tar file in this folder. Make shards of photographs with `splitmask pack`.")

    # `cargo test` leaves a program there whose own parts are several times as slow.
    said = subprocess.run([args.splitmask, "bench", "pipeline", args.shards, "--level", "L1", "--images", "1"], capture_output=True, text=True, check=False)
    if "built for tests" in said.stderr:
        sys.exit(f"{args.splitmask} was built for tests: run `cargo build`, then this again.")

    def ours(level, threads, images):
        command = [args.splitmask, "bench", "pipeline", args.shards, "--level", level, "--threads", str(threads), "--images", str(images), "--json"]
        return command + (["--codebook", args.codebook] if level == "batch" else [])

    pin = ["taskset", "-c", str(args.core)]
    cases = [(f"{n} {l} ({i})", pin + [sys.executable, __file__, "--one", f"{n}|{l}|{i}|{args.images}|{args.shards}"]) for n, l, i in PEERS]
    levels = ["L2", "L3"] + (["batch"] if args.codebook else [])
    cases = [(f"splitmask {level}", pin + ours(level, 1, 2 * args.images)) for level in levels] + cases
    if args.floor:
        cases.insert(0, ("floor", pin + [args.floor, args.shards]))
    if args.two:
        cases += [(f"splitmask {level}, two cores", ours(level, 2, 4 * args.images)) for level in levels]
    cases = [c for c in cases if not args.only or c[0].split()[0] in args.only.split(",")]
    found = {name: [] for name, _ in cases}
    quiet = {**os.environ, **{k: "1" for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}}
    for number in range(args.rounds):
        for name, command in cases:
            done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
            if done.returncode != 0:
                sys.exit(f"{name}: {' '.join(command)}\n{done.stderr[-2000:]}\nWhat to install is said by --help; --only leaves loaders out.")
            value = speed(done.stdout)
            found[name].append(value)
            print(f"round {number + 1} of {args.rounds}  {name:32} {value:7.0f} images/s", file=sys.stderr, flush=True)
    print("| loader | images/s: median (lowest-highest) |\n| --- | --- |")
    for name, values in found.items():
        print(f"| {name} | {statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f}) |")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        one(sys.argv[2])
    main()
