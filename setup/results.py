#!/usr/bin/env python3
"""Runs the comparisons of docs/results.md and writes their tables there.

    setup/results.py TABLE [--seeds 0,1,2] [--steps N] [--minutes M] [--set drawings|emoji|scenes] [--starts A,B] [--runs FOLDER] [--out FILE]

TABLE: `objectives` (the paper's ablation), `tokenizers` (its Table 2), `fractions` (its Table 1: 10, 30, 100 % of the images), all three
at equal updates on the data of `make demo` (data/clipart); `family` (every objective at equal updates, and with --minutes at equal processor time) and
`fractions-family` (the paper's Figure 2: supervised, DINO, BEiT, SplitMask on 1, 10, 100 % of the images), on drawings or emoji without
duplicates; `transfer` (fine-tuned from random weights and from the family's runs: on drawings or emoji with all labels and 10 % of them, on scenes with
their maps). `costs` writes what a step of each objective takes into docs/objectives.md. `all`: the first three. A run that is there is not repeated: tables
share runs, and a stopped call goes on. Each run is trained, then measured by `splitmask eval linear`, `eval knn` and `eval spread`, whose JSON lies beside
it. The family takes hours: its numbers are kept in docs/results/ as well, by run and with the commit that made them, and what is there is not trained again
(`--anew` does).
"""

import argparse
import json
import os
import re
import statistics
import sys
import time
from pathlib import Path

from family import SETS, UPDATES, family, fractions_family
from program import WORDS, say, splitmask, spread
from transfer import STARTS, transfer

DATA = Path("data/clipart")
OBJECTIVES = [
    ("beit", "BEiT"),
    ("split-inpaint", "split + inpaint"),
    ("split-match", "split + match"),
    ("splitmask", "split + inpaint + match (SplitMask)"),
]
TOKENIZERS = ["random-patches", "random-projection", "k-means", "dvae"]
FRACTIONS = [0.1, 0.3, 1.0]
BASE = {"objective": "splitmask", "tokenizer": "random-patches", "fraction": 1.0}


def codebook(kind: str) -> Path:
    path = DATA / ("words-48.safetensors" if kind == BASE["tokenizer"] else f"words-48-{kind}.safetensors")
    if not path.exists():
        say(f"making a codebook: {kind}")
        # Pixels as they are for words that are pixels; the default space for random vectors.
        pixels = [] if kind in ("random-projection", "dvae") else ["--pixels", "raw"]
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


# Recipes of the demo's size, whose encoder is the same: 64 px, 6 layers of 128. Without a codebook a step has 8,192 words, whatever files lie here.
NO_CODEBOOK = "codebook.path=none"
COSTS = {
    "MAE": ("mae-demo", []),
    "BEiT": ("ablation/beit", ["model.image=64", "model.width=0", "model.heads=0", "objective.mask.count=26", NO_CODEBOOK]),
    "supervised": ("supervised-demo", ["objective.classes=84"]),
    "SplitMask": ("demo", [NO_CODEBOOK]),
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
    lines[0] += f"{ROUNDS} rounds that took turns. Memory is the whole program's. SplitMask and BEiT have 8,192 words, DINO sees two crops of 64 and four of 32 pixels of each image."
    lines += ["", "| objective | ms a step (of each round) | beside MAE | peak memory, MB |", "| --- | --- | --- | --- |"]
    for name in COSTS:
        ms = middle(name, "ms")
        each = ", ".join(f"{row['ms']:.0f}" for row in found[name])
        lines.append(f"| {name} | {ms:.0f} ({each}) | {ms / middle('MAE', 'ms'):.1f} × | {middle(name, 'peak_memory_mb'):.0f} |")
    return lines


def untrained(args, seed: int) -> dict:
    """The base run's encoder before training."""
    trained(args, seed, **BASE)
    folder = args.runs / f"{BASE['objective']}-{BASE['tokenizer']}-100pc-s{seed}"
    results = folder / "random-init.json"
    if not results.exists():
        results.write_text(json.dumps(measured(folder, "--random-init"), indent=1))
    return json.loads(results.read_text())


def row(name: str, runs: list) -> str:
    best, last = [r["linear"]["best"] for r in runs], [r["linear"]["probes"][-1] for r in runs]
    layers = ", ".join(str(b["layer"]) for b in best)
    return f"| {name} | {spread([b['top1'] for b in best])} | {layers} | {spread([p['top1'] for p in last])} | {spread([r['knn']['top1'] for r in runs])} |"


def by_layer(rows: list) -> list:
    """Figure 5: mean accuracy of each layer's probe."""
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
    rows = [("random initialisation", [untrained(args, s) for s in seeds])]
    if which == "objectives":
        title = "What each part of SplitMask adds"
        rows += [(name, every(objective=kind)) for kind, name in OBJECTIVES]
    elif which == "tokenizers":
        title = "Which visual words"
        rows += [(kind, every(tokenizer=kind)) for kind in TOKENIZERS]
    else:
        title = "How many images"
        rows += [(f"{round(100 * f)} % of the images", every(fraction=f)) for f in FRACTIONS]
    example = rows[1][1][0]
    steps = sorted({r["steps"] for _, runs in rows for r in runs if "steps" in r})
    seconds = [r["seconds"] for _, runs in rows for r in runs if "seconds" in r]
    lines = [f"## {title}", "", f"`make results TABLE={which}`", ""]
    lines += ["| | linear, chosen layer (%) | which layer | linear, last layer (%) | k-NN (%) |", "| --- | --- | --- | --- | --- |"]
    lines += [row(name, runs) for name, runs in rows]
    lin = example["linear"]
    note = (
        f"{' and '.join(map(str, steps))} updates of batch 128, seeds {', '.join(map(str, seeds))}: mean ± standard deviation over the seeds. "
        f"{lin['queries']} validation and {lin['references']} labelled training images of {lin['classes']} classes; commonest class {100 * lin['majority']:.1f} %, "
        f"chance {100 * lin['chance']:.1f} %. {min(seconds):.0f} to {max(seconds):.0f} s a run. The set is packed as `make demo` packs it, duplicates included: some "
        "validation images are in the training set too, for every row alike."
    )
    return [*lines, "", note, *by_layer(rows)]


HEAD = """# Results at a small scale

The paper's questions, asked of some thousand drawings, emoji and composed scenes and of an encoder of 6 layers on two CPU cores. Differences below about twice
the spread mean nothing, one in twenty above it comes by chance with three seeds, and nothing here says how the same comparison ends at the paper's scale. Of probes, layer and weight decay are chosen on held-out training
images; of fine-tuning, the rate as each table says. Written by `setup/results.py`; each table by its own command.
"""


def write(file: Path, which: str, lines: list, head: str = "") -> None:
    """Puts a table into its place in a file; `head`: what stands before the first one, if not what stands there already."""
    text = file.read_text() if file.exists() else ""
    if head:
        text = head + "\n" + text[text.find("<!-- ") :] if "<!-- " in text else head
    block = f"<!-- {which} -->\n" + "\n".join(lines) + f"\n<!-- end of {which} -->\n"
    old = re.compile(rf"<!-- {which} -->\n.*?<!-- end of {which} -->\n", re.DOTALL)
    text = old.sub(lambda _: block, text) if old.search(text) else text.rstrip("\n") + "\n\n" + block
    file.write_text(text)
    say(f"{file}: {which}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["objectives", "tokenizers", "fractions", "family", "fractions-family", "transfer", "costs", "all"])
    parser.add_argument("--seeds", default=[0, 1, 2], type=lambda text: [int(s) for s in text.split(",")])
    parser.add_argument("--starts", default=list(STARTS), type=lambda text: text.split(","), help="transfer: starts of fine-tuning, with commas (default: all)")
    parser.add_argument("--steps", default=UPDATES, type=int, help=f"updates of each run, of pre-training in `transfer` (default: {UPDATES})")
    parser.add_argument("--minutes", default=0.0, type=float, help="family: processor minutes of each run of the second table (default: none)")
    parser.add_argument("--set", default="drawings", choices=list(SETS), help="pictures of the family's tables and of `transfer` (default: drawings)")
    parser.add_argument("--anew", action="store_true", help="family: train also what docs/results/ has numbers of")
    parser.add_argument("--runs", default=Path("runs/results"), type=Path, help="where the runs go; another folder for other --steps")
    parser.add_argument("--out", default=Path("docs/results.md"), type=Path)
    args = parser.parse_args()
    args.made = set()
    os.chdir(Path(__file__).resolve().parent.parent)
    of_family = {"family": family, "fractions-family": fractions_family, "transfer": transfer}.get(args.table)
    if args.set == "scenes" and args.table != "transfer":
        sys.exit("scenes have no classes, by which this table judges: TABLE=transfer is theirs")
    if not of_family and args.table != "costs" and not (DATA / "train" / "manifest.json").exists():
        sys.exit(f"{DATA}/train is not there: `make demo` packs it")
    args.runs.mkdir(parents=True, exist_ok=True)
    if args.table == "costs":
        return write(Path("docs/objectives.md"), "costs", costs(args))
    if of_family:
        return write(args.out, f"{args.table} {args.set}", of_family(args), HEAD)
    for which in ["objectives", "tokenizers", "fractions"] if args.table == "all" else [args.table]:
        write(args.out, which, table(args, which), HEAD)


if __name__ == "__main__":
    main()
