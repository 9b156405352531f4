"""The tables of setup/results.py on drawings and emoji: every objective beside each other, on fewer images, and fine-tuned. They take hours, so the numbers
of each run are kept in docs/results/, with the commit that made them."""
import json
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from program import WORDS, processor_seconds, say, splitmask, spread

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
    # What a call that was stopped left here would go on, and its cost would be that of the rest.
    shutil.rmtree(folder, ignore_errors=True)
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
        # Trained first, so that the cost of the training is told with its own numbers.
        family_run(args, "splitmask", seed, args.steps)
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
        shutil.rmtree(folder, ignore_errors=True)
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
