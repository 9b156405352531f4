#!/usr/bin/env python3
"""Runs the comparisons of docs/results.md and writes their tables there.

    setup/results.py TABLE [--seeds 0,1,2] [--steps N] [--minutes M] [--set drawings|emoji] [--runs FOLDER] [--out FILE]

TABLE: `objectives` (the paper's ablation), `tokenizers` (its Table 2), `fractions` (its Table 1: 10, 30, 100 % of the images), all three
at equal updates on the data of `make demo` (data/clipart); `family` (every objective at equal updates, then at equal processor time) and
`fractions-family` (the paper's Figure 2: supervised, DINO, BEiT, SplitMask on 1, 10, 100 % of the images), on drawings or emoji without
duplicates; `transfer` (fine-tuning with all labels and 10 % of them, from random weights and from the family's runs). `costs` writes what a step of each objective takes into docs/objectives.md. `all`: the first three. A run that is there is not repeated: tables share runs, and a stopped call goes on. Each run is
trained, then measured by `splitmask eval linear`, `eval knn` and `eval spread`, whose JSON lies beside it. The family takes hours: its numbers are kept
in docs/results/ as well, by run and with the commit that made them, and what is there is not trained again (`--anew` does).
"""
import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

DATA = Path("data/clipart")
SPLITMASK = os.environ.get("SPLITMASK", "target/debug/splitmask")
OBJECTIVES = [
    ("beit", "BEiT"),
    ("split-inpaint", "split + inpaint"),
    ("split-match", "split + match"),
    ("splitmask", "split + inpaint + match (SplitMask)"),
]
# The last may be missing from the program; its row then says so.
TOKENIZERS = ["random-patches", "random-projection", "k-means", "dvae"]
FRACTIONS = [0.1, 0.3, 1.0]
# The recipes of the family, and what brings each to the encoder of configs/ablation: 48 px, 6 layers of 96.
SMALL = ["model.image=48", "model.width=96", "model.heads=3", "admin.bind=", "admin.lifecycle=false"]
FAMILY = {
    "splitmask": ("SplitMask", "ablation/splitmask", []),
    "beit": ("BEiT", "ablation/beit", []),
    "mae": ("MAE", "mae-demo", SMALL),
    "simclr": ("SimCLR", "simclr-demo", SMALL),
    "moco-v3": ("MoCo v3", "moco-v3-demo", SMALL),
    "dino": ("DINO", "dino-demo", [*SMALL, "objective.local_size=24"]),
    "supervised": ("supervised (DeiT)", "supervised-demo", SMALL),
}
WORDLESS = {"mae", "simclr", "moco-v3", "dino", "supervised"}
FRACTIONS_FAMILY = [0.01, 0.1, 1.0]
# What the sets are made of: the command that fetches the pictures, and the arguments of `splitmask pack`.
SQUARE = ["--background", "white", "--square", "--longest-side", "96", "--shard-size", "8MiB", "--drop-duplicates", "--force"]
SETS = {
    "drawings": (["setup/openclipart.sh"], ["data/openclipart/usr/share/openclipart/png", "data/drawings", "--val-share", "0.2", *SQUARE]),
    "emoji": (["setup/emoji.sh"], ["data/emoji-pictures/three-hands", "data/emoji", "--val", "data/emoji-pictures/fourth-hand", *SQUARE]),
}
BASE = {"objective": "splitmask", "tokenizer": "random-patches", "fraction": 1.0}
WORDS = ["--words", "512", "--image", "48", "--patch", "8", "--seed", "0"]


class Unknown(Exception):
    """The program does not have this."""


def splitmask(*arguments: str, capture: bool = False) -> str:
    done = subprocess.run([SPLITMASK, *arguments], stdout=subprocess.PIPE if capture else None, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, [SPLITMASK, *arguments])
    return done.stdout or ""


def say(text: str) -> None:
    print(f"[results] {text}", flush=True)


def codebook(kind: str) -> Path:
    path = DATA / ("words-48.safetensors" if kind == BASE["tokenizer"] else f"words-48-{kind}.safetensors")
    if not path.exists():
        say(f"making a codebook: {kind}")
        # Pixels as they are for words that are pixels; the default space for random vectors.
        pixels = [] if kind in ("random-projection", "dvae") else ["--pixels", "raw"]
        if kind not in subprocess.run([SPLITMASK, "codebook", "--help"], capture_output=True, text=True).stdout:
            raise Unknown(f"this build has no `codebook --kind {kind}`")
        # A small learnt vocabulary: the default of 20,000 steps is for a GPU.
        short = ["--steps", "400", "--width", "32"] if kind == "dvae" else []
        splitmask("codebook", str(DATA / "train"), "--out", str(path), "--kind", kind, *WORDS, *pixels, *short)
    return path


def trained(args, seed: int, objective: str, tokenizer: str, fraction: float) -> dict:
    """Numbers of one run, which is made if it is not there."""
    words = codebook(tokenizer)
    folder = args.runs / f"{objective}-{tokenizer}-{round(100 * fraction)}pc-s{seed}"
    results = folder / "results.json"
    if results.exists():
        found = json.loads(results.read_text())
        if found["steps"] != args.steps:
            sys.exit(f"{results}: of {found['steps']} updates, not {args.steps}; name another folder with --runs")
        return found
    say(f"training {folder.name}")
    began = time.monotonic()
    # fmt: off
    sets = [f"run.seed={seed}", f"run.dir={folder}", f"run.name={folder.name}", f"codebook.path={words}", f"data.fraction={fraction}",
            f"optim.total_steps={args.steps}", f"optim.warmup_steps={max(1, args.steps // 5)}"]
    # fmt: on
    splitmask("train", "--config", f"configs/ablation/{objective}.toml", *(x for s in sets for x in ("--set", s)))
    found = {"seconds": time.monotonic() - began, "steps": args.steps} | measured(folder)
    results.write_text(json.dumps(found, indent=1))
    return found


def measured(folder: Path, *more: str) -> dict:
    linear = json.loads(splitmask("eval", "linear", str(folder), "--json", *more, capture=True))["linear"]
    knn = json.loads(splitmask("eval", "knn", str(folder), "--json", *more, capture=True))["knn"]
    return {"linear": linear, "knn": knn}


def processor_seconds() -> float:
    """Of all programs that this one ran to their end; on a machine that others use too, a truer cost than the clock's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def packed(name: str) -> Path:
    """The folder of a set's shards and visual words, made if it is not there."""
    fetch, pack = SETS[name]
    data = Path(pack[1])
    if not (data / "train" / "manifest.json").exists():
        subprocess.run(fetch, check=True)
        splitmask("pack", *pack)
    words = data / "words-48.safetensors"
    if not words.exists():
        splitmask("codebook", str(data / "train"), "--out", str(words), "--kind", "random-patches", *WORDS, "--pixels", "raw")
    return data


def kept(args, name: str, make) -> dict:
    """Numbers of the run `name`, made by `make` unless docs/results/ has them."""
    file = args.out.parent / "results" / f"{args.set}.json"
    records = json.loads(file.read_text()) if file.exists() else {}
    if name not in records or (args.anew and name not in args.made):
        numbers = make()
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
        # Read again: another call may have written meanwhile.
        records = json.loads(file.read_text()) if file.exists() else {}
        records[name] = numbers | {"commit": commit}
        args.made.add(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(records[key])}" for key in sorted(records)) + "\n}\n")
    return records[name]


def family_name(args, objective: str, seed: int, steps: int, fraction: float = 1.0) -> str:
    return f"{args.set}-{objective}-{round(100 * fraction)}pc-{steps}-s{seed}"


def family_run(args, objective: str, seed: int, steps: int, fraction: float = 1.0) -> dict:
    """Numbers of one run of the family."""
    name = family_name(args, objective, seed, steps, fraction)
    return kept(args, name, lambda: family_trained(args, name, objective, seed, steps, fraction))


def family_trained(args, name: str, objective: str, seed: int, steps: int, fraction: float) -> dict:
    """Trains a run of the family and measures it."""
    data = packed(args.set)
    _, config, sets = FAMILY[objective]
    folder = args.runs / name
    say(f"training {name}")
    words = [] if objective in WORDLESS else [f"codebook.path={data}/words-48.safetensors"]
    # fmt: off
    sets = [*sets, *words, f"run.seed={seed}", f"run.dir={folder}", f"run.name={folder.name}", f"data.train={data}/train", f"data.val={data}/val",
            f"data.fraction={fraction}", f"optim.total_steps={steps}", f"optim.warmup_steps={max(1, steps // 5)}", "train.precision=f32",
            "train.threads=1", "log.every_steps=20", "checkpoint.every_steps=500", "picture.every_steps=0", "eval.every_steps=0", "eval.spread_every_steps=0"]
    # fmt: on
    began, used = time.monotonic(), processor_seconds()
    splitmask("train", "--config", f"configs/{config}.toml", *(x for s in sets for x in ("--set", s)))
    found = {"seconds": round(time.monotonic() - began, 1), "processor_seconds": round(processor_seconds() - used, 1), "steps": steps}
    return found | family_measured(folder)


def family_measured(folder: Path, *more: str) -> dict:
    ask = lambda *arguments: json.loads(splitmask("eval", *arguments, "--json", *more, capture=True))
    linear = ask("linear", str(folder), "--layers", "last", "--pool", "mean,cls")["linear"]
    mean, token = (ask("knn", str(folder), "--pool", pool)["knn"] for pool in ("mean", "cls"))
    return {"linear": linear, "knn": mean, "knn of the class token": token, "spread": ask("spread", str(folder))["spread"]}


def family_untrained(args, seed: int) -> dict:
    """SplitMask's encoder before training."""
    name = family_name(args, "splitmask", seed, args.steps)

    def measure() -> dict:
        if not (args.runs / name / "checkpoints").exists():
            family_trained(args, name, "splitmask", seed, args.steps, 1.0)
        return family_measured(args.runs / name, "--random-init")

    return kept(args, f"{args.set}-random-init-s{seed}", measure)


def family_row(name: str, runs: list) -> str:
    mean = lambda of: statistics.mean(of(r) for r in runs)
    trained = "steps" in runs[0]
    cost = f"{mean(lambda r: r['processor_seconds']):.0f}" if trained else "–"
    steps = f"{mean(lambda r: r['steps']):.0f}" if trained else "0"
    linear = spread([r["linear"]["best"]["top1"] for r in runs])
    patches, token = (spread([r[knn]["top1"] for r in runs]) for knn in ("knn", "knn of the class token"))
    rank = mean(lambda r: r["spread"]["rank"])
    return f"| {name} | {steps} | {cost} | {patches} | {token} | {linear} | {rank:.0f} |"


FAMILY_COLUMNS = [
    "| | updates | processor seconds | k-NN, mean of the patches (%) | k-NN, class token (%) | linear, last layer (%) | effective rank |",
    "| --- |" + " --- |" * 6,
]


def family_note(args, runs: list) -> str:
    lin = runs[0]["linear"]
    return (
        f"Set: {args.set}, no duplicates; {lin['queries']} validation and {lin['references']} labelled training images of {lin['classes']} classes; "
        f"commonest class {100 * lin['majority']:.1f} %, chance {100 * lin['chance']:.1f} %. Batch 128, f32, one thread, seeds {', '.join(map(str, args.seeds))}: "
        "mean ± standard deviation over the seeds. The probe takes mean or class token, whichever does better on held-out training images; the rank is "
        "RankMe's of the mean."
    )


def family(args) -> list:
    """Every objective at equal updates; with --minutes, also each for so much processor time."""
    # Seed by seed, so that what was cut off has whole ones.
    for s in args.seeds:
        family_untrained(args, s)
        for o in FAMILY:
            family_run(args, o, s, args.steps)
    equal = {o: [family_run(args, o, s, args.steps) for s in args.seeds] for o in FAMILY}
    random = ("random initialisation", [family_untrained(args, s) for s in args.seeds])
    rows = [random, *((FAMILY[o][0], runs) for o, runs in equal.items())]
    command = f"make results TABLE=family SET={args.set}"
    lines = [f"## The family, on {args.set}", "", f"`{command}`: equal updates.", "", *FAMILY_COLUMNS]
    lines += [family_row(*row) for row in rows]
    if args.minutes:
        timed = []
        for o, runs in equal.items():
            # What a step costs is known from the runs above.
            cost = statistics.mean(r["processor_seconds"] / r["steps"] for r in runs)
            steps = max(1, round(60 * args.minutes / cost, -1))
            timed.append((FAMILY[o][0], [family_run(args, o, s, int(steps)) for s in args.seeds]))
        lines += ["", f"Equal processor time, {args.minutes:g} minutes a run:", "", *FAMILY_COLUMNS]
        lines += [family_row(*row) for row in [random, *timed]]
    return lines + ["", family_note(args, equal["splitmask"])]


def fractions_family(args) -> list:
    """The paper's question: who keeps its quality with few images."""
    columns = [f"{100 * f:g} %" for f in FRACTIONS_FAMILY]
    lines = [f"## The family on fewer images, on {args.set}", "", f"`make results TABLE=fractions-family SET={args.set}`: k-NN (%) at {args.steps} updates on that share of the images.", ""]
    lines += ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    random = [family_untrained(args, s) for s in args.seeds]
    lines.append(f"| random initialisation | {' | '.join([spread([r['knn']['top1'] for r in random])] * len(columns))} |")
    for o in ["supervised", "dino", "beit", "splitmask"]:
        runs = [[family_run(args, o, s, args.steps, f) for s in args.seeds] for f in FRACTIONS_FAMILY]
        lines.append(f"| {FAMILY[o][0]} | {' | '.join(spread([r['knn']['top1'] for r in at]) for at in runs)} |")
    return lines + ["", family_note(args, [family_run(args, "splitmask", args.seeds[0], args.steps)])]


# Where fine-tuning starts, and the rates that each start is tried with.
STARTS = {"random-init": "random initialisation", **{o: FAMILY[o][0] for o in ("splitmask", "beit", "dino", "supervised")}}
RATES = [1e-3, 2e-3, 4e-3]
LABELLED = [1.0, 0.1]
TRANSFER_STEPS = 240


def fine_tuned(args, start: str, seed: int, fraction: float, rate: float) -> dict:
    """Accuracy after fine-tuning the encoder of a run of the family on that share of the labelled images."""
    name = f"{args.set}-{start}-tuned-{round(100 * fraction)}pc-lr{rate:g}-s{seed}"

    def make() -> dict:
        data = packed(args.set)
        folder = args.runs / name
        source = family_name(args, start, seed, args.steps)
        if start != "random-init" and not (args.runs / source / "checkpoints").exists():
            family_trained(args, source, start, seed, args.steps, 1.0)
        say(f"fine-tuning {name}")
        # fmt: off
        sets = [*SMALL, f"run.init_from={'' if start == 'random-init' else args.runs / source}", f"run.seed={seed}", f"run.dir={folder}", f"run.name={folder.name}",
                f"data.train={data}/train", f"data.val={data}/val", f"data.fraction={fraction}", f"optim.lr={rate}", f"optim.total_steps={TRANSFER_STEPS}",
                "train.precision=f32", "train.threads=1", "log.every_steps=20", "checkpoint.every_steps=500", "picture.every_steps=0", "eval.every_steps=0"]
        # fmt: on
        began, used = time.monotonic(), processor_seconds()
        splitmask("train", "--config", "configs/finetune-demo.toml", *(x for s in sets for x in ("--set", s)))
        cost = {"seconds": round(time.monotonic() - began, 1), "processor_seconds": round(processor_seconds() - used, 1), "steps": TRANSFER_STEPS}
        found = json.loads(splitmask("eval", "classify", str(folder), "--json", capture=True))["classify"]
        return cost | {"rate": rate} | {key: found[key] for key in ("top1", "top5", "class_mean", "images", "majority")}

    return kept(args, name, make)


def transfer(args) -> list:
    """What pre-training gives once there are labels."""
    lines = [f"## Fine-tuning, on {args.set}", "", f"`make results TABLE=transfer SET={args.set}`: top-1 (%) on the validation images.", ""]
    lines += ["| start | all labels | rate | 10 % of them | rate |", "| --- |" + " --- |" * 4]
    for start, title in STARTS.items():
        cells = []
        for fraction in LABELLED:
            # The rate is chosen with the first seed, for each start alike, on the images that are told of.
            tried = {rate: fine_tuned(args, start, args.seeds[0], fraction, rate)["top1"] for rate in RATES}
            rate = max(tried, key=tried.get)
            cells += [spread([fine_tuned(args, start, s, fraction, rate)["top1"] for s in args.seeds]), f"{rate:g}"]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    example = fine_tuned(args, "random-init", args.seeds[0], 1.0, RATES[0])
    return lines + [
        "",
        f"Pre-trained for {args.steps} updates on the training images of the same set, then {TRANSFER_STEPS} updates of 128 by configs/finetune-demo.toml at 48 px, layer decay "
        f"0.75, for every start. Rates {', '.join(f'{r:g}' for r in RATES)} were tried with seed {args.seeds[0]}, the best one taken for all seeds ({', '.join(map(str, args.seeds))}); "
        f"it was chosen on the validation images, for every start alike. Mean ± standard deviation over the seeds; {example.get('images', '?')} validation images.",
    ]


# Recipes of the demo's size, whose encoder is the same: 64 px, 6 layers of 128.
COSTS = {
    "MAE": ("mae-demo", []),
    "BEiT": ("ablation/beit", ["model.image=64", "model.width=0", "model.heads=0", "objective.mask.count=26"]),
    "supervised": ("supervised-demo", ["objective.classes=84"]),
    "SplitMask": ("demo", []),
    "SimCLR": ("simclr-demo", []),
    "MoCo v3": ("moco-v3-demo", []),
    "DINO": ("dino-demo", []),
    "DINO with DINOv2's options": ("dinov2-demo", []),
}
ROUNDS = 3


def costs(_) -> list:
    """A step of each objective beside each other, in rounds that take turns."""
    found = {name: [] for name in COSTS}
    for turn in range(ROUNDS):
        for name, (recipe, sets) in COSTS.items():
            say(f"round {turn + 1} of {ROUNDS}: {name}")
            sets = [*sets, "train.precision=f32", "train.threads=1", "train.device=cpu"]
            arguments = [x for s in sets for x in ("--set", s)]
            answer = json.loads(splitmask("bench", "step", f"configs/{recipe}.toml", "--batch", "64", "--seconds", "6", "--json", *arguments, capture=True))
            found[name].append(answer["steps"][0])
    middle = lambda name, key: statistics.median(row[key] for row in found[name])
    lines = ["`make results TABLE=costs`: a step of 64 images at the demo's size (64 px, patches of 8, 6 layers), f32, one thread of a CPU; medians of "]
    lines[0] += f"{ROUNDS} rounds that took turns. Memory is the whole program's. DINO sees two crops of 64 and four of 32 pixels of each image."
    lines += ["", "| objective | ms a step | beside MAE | peak memory, MB |", "| --- | --- | --- | --- |"]
    for name in COSTS:
        ms = middle(name, "ms")
        lines.append(f"| {name} | {ms:.0f} | {ms / middle('MAE', 'ms'):.1f} × | {middle(name, 'peak_memory_mb'):.0f} |")
    return lines


def untrained(args, seed: int) -> dict:
    """The base run's encoder before training."""
    trained(args, seed, **BASE)
    folder = args.runs / f"{BASE['objective']}-{BASE['tokenizer']}-100pc-s{seed}"
    results = folder / "random-init.json"
    if not results.exists():
        results.write_text(json.dumps(measured(folder, "--random-init"), indent=1))
    return json.loads(results.read_text())


def spread(values: list) -> str:
    mean = 100 * statistics.mean(values)
    return f"{mean:.1f} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def row(name: str, runs: list) -> str:
    if not runs:
        return f"| {name} | – | – | – | – |"
    best, last = [r["linear"]["best"] for r in runs], [r["linear"]["probes"][-1] for r in runs]
    layers = ", ".join(str(b["layer"]) for b in best)
    return f"| {name} | {spread([b['top1'] for b in best])} | {layers} | {spread([p['top1'] for p in last])} | {spread([r['knn']['top1'] for r in runs])} |"


def by_layer(rows: list) -> list:
    """Figure 5: mean accuracy of each layer's probe."""
    rows = [(name, runs) for name, runs in rows if runs]
    depth = len(rows[0][1][0]["linear"]["probes"])
    lines = ["", "Linear accuracy by layer (mean of the seeds; the paper's Figure 5):", ""]
    lines += ["| | " + " | ".join(map(str, range(1, depth + 1))) + " |", "| --- |" + " --- |" * depth]
    for name, runs in rows:
        means = [statistics.mean(r["linear"]["probes"][i]["top1"] for r in runs) for i in range(depth)]
        lines.append(f"| {name} | " + " | ".join(f"{100 * m:.1f}" for m in means) + " |")
    return lines


def table(args, which: str) -> list:
    seeds = args.seeds
    every = lambda **change: [trained(args, s, **(BASE | change)) for s in seeds]
    notes, rows = [], [("random initialisation", [untrained(args, s) for s in seeds])]
    if which == "objectives":
        title = "What each part of SplitMask adds"
        rows += [(name, every(objective=kind)) for kind, name in OBJECTIVES]
    elif which == "tokenizers":
        title = "Which visual words"
        for kind in TOKENIZERS:
            try:
                rows.append((kind, every(tokenizer=kind)))
            except Unknown as e:
                notes = ["", f"Not measured: {e}."]
                rows.append((kind, []))
    else:
        title = "How many images"
        rows += [(f"{round(100 * f)} % of the images", every(fraction=f)) for f in FRACTIONS]
    example = rows[1][1][0]
    steps = sorted({r["steps"] for _, runs in rows for r in runs if "steps" in r})
    seconds = [r["seconds"] for _, runs in rows for r in runs if "seconds" in r]
    lines = [f"## {title}", "", f"`make results TABLE={which}`", ""]
    lines += ["| | linear, best layer (%) | which layer | linear, last layer (%) | k-NN (%) |", "| --- | --- | --- | --- | --- |"]
    lines += [row(name, runs) for name, runs in rows]
    lin = example["linear"]
    lines += [
        "",
        f"{' and '.join(map(str, steps))} updates of batch 128, seeds {', '.join(map(str, seeds))}: mean ± standard deviation over the seeds. "
        f"{lin['queries']} validation and {lin['references']} labelled training images of {lin['classes']} classes; commonest class {100 * lin['majority']:.1f} %, "
        f"chance {100 * lin['chance']:.1f} %. {min(seconds):.0f} to {max(seconds):.0f} s a run.",
    ]
    return lines + notes + by_layer(rows)


HEAD = """# Results at a small scale

The paper's questions, asked of 6,500 clip-art images and an encoder of 6 layers on two CPU cores. Differences below about twice the spread
mean nothing, and nothing here says how the same comparison ends at the paper's scale. Best layer and weight decay are chosen on held-out
training images. Written by `setup/results.py`; each table by its own command.
"""


def write(file: Path, which: str, lines: list) -> None:
    text = file.read_text() if file.exists() else HEAD
    block = f"<!-- {which} -->\n" + "\n".join(lines) + f"\n<!-- end of {which} -->\n"
    old = re.compile(rf"<!-- {which} -->\n.*?<!-- end of {which} -->\n", re.S)
    text = old.sub(lambda _: block, text) if old.search(text) else text.rstrip("\n") + "\n\n" + block
    file.write_text(text)
    say(f"{file}: {which}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["objectives", "tokenizers", "fractions", "family", "fractions-family", "transfer", "costs", "all"])
    parser.add_argument("--seeds", default=[0, 1, 2], type=lambda text: [int(s) for s in text.split(",")])
    parser.add_argument("--steps", default=400, type=int, help="updates of each run (default: 400)")
    parser.add_argument("--minutes", default=0.0, type=float, help="family: processor minutes of each run of the second table (default: none)")
    parser.add_argument("--set", default="drawings", choices=list(SETS), help="pictures of the family's tables (default: drawings)")
    parser.add_argument("--anew", action="store_true", help="family: train also what docs/results/ has numbers of")
    parser.add_argument("--runs", default=Path("runs/results"), type=Path, help="where the runs go; another folder for other --steps")
    parser.add_argument("--out", default=Path("docs/results.md"), type=Path)
    args = parser.parse_args()
    args.made = set()
    os.chdir(Path(__file__).resolve().parent.parent)
    of_family = {"family": family, "fractions-family": fractions_family, "transfer": transfer}.get(args.table)
    if not of_family and args.table != "costs" and not (DATA / "train" / "manifest.json").exists():
        sys.exit(f"{DATA}/train is not there: `make demo` packs it")
    args.runs.mkdir(parents=True, exist_ok=True)
    if args.table == "costs":
        return write(Path("docs/objectives.md"), "costs", costs(args))
    if of_family:
        return write(args.out, f"{args.table} {args.set}", of_family(args))
    for which in ["objectives", "tokenizers", "fractions"] if args.table == "all" else [args.table]:
        write(args.out, which, table(args, which))


if __name__ == "__main__":
    main()
