"""The tables of setup/results.py on drawings and emoji: every objective beside each other, and on fewer images. They take hours, so the
numbers of each run are kept in docs/results/, with the commit that made them."""

import json
import re
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from program import WORDS, processor_seconds, say, splitmask, spread

# The recipes of the family, and what brings each to the encoder of configs/ablation: 48 px, 6 layers of 96.
SMALL = ["model.image=48", "model.width=96", "model.heads=3", "eval.pool=mean", "admin.bind=", "admin.lifecycle=false"]
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
# What the sets are made of: the command that fetches the pictures, and the arguments of `splitmask pack` (none: the command packs too).
SQUARE = ["--background", "white", "--square", "--longest-side", "96", "--shard-size", "8MiB", "--drop-duplicates", "--force"]
SETS = {
    "drawings": (["setup/openclipart.sh"], ["data/openclipart/usr/share/openclipart/png", "data/drawings", "--val-share", "0.2", *SQUARE]),
    "emoji": (["setup/emoji.sh"], ["data/emoji-pictures/three-hands", "data/emoji", "--val", "data/emoji-pictures/fourth-hand", *SQUARE]),
    "scenes": (["setup/scenes.sh"], []),
}
# Updates of pre-training, unless --steps says otherwise.
UPDATES = 400
# Words are learnt from crops of at most a quarter of a scene, for it holds many things (arXiv 2112.10740 section 5.2.2).
SCENE_CROPS = ["augment.crop.area=[0.08, 0.25]"]


def packed(name: str) -> Path:
    """The folder of a set's shards and visual words, made if it is not there."""
    fetch, pack = SETS[name]
    data = Path("data") / name
    if not (data / "train" / "manifest.json").exists():
        subprocess.run(fetch, check=True)
        if pack:
            splitmask("pack", *pack)
    words = data / "words-48.safetensors"
    if not words.exists():
        splitmask("codebook", str(data / "train"), "--out", str(words), "--kind", "random-patches", *WORDS, "--pixels", "raw")
    return data


def kept(args, name: str, make, steps: int = 0) -> dict:
    """Numbers of the run `name`, made by `make` unless docs/results/ has them; where `steps` says how long the run is, of that length."""
    file = args.out.parent / "results" / f"{args.set}.json"
    records = json.loads(file.read_text()) if file.exists() else {}
    other = name in records and steps and records[name]["steps"] != steps
    if name not in records or other or (args.anew and name not in args.made):
        numbers = make()
        commit = made_by()
        # Read again: another call may have written meanwhile.
        records = json.loads(file.read_text()) if file.exists() else {}
        records[name] = numbers | {"commit": commit}
        args.made.add(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(records[key])}" for key in sorted(records)) + "\n}\n")
    return records[name]


def made_by() -> str:
    """The commit, and whether anything but these numbers differs from it."""
    git = lambda *arguments: subprocess.run(["git", *arguments], check=False, capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/results", ":!docs/results.md")
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def train(folder: Path, recipe: str, sets: list, steps: int) -> dict:
    """Trains a run from its start; what that took."""
    # What a call that was stopped left here would go on, and its cost would be that of the rest.
    shutil.rmtree(folder, ignore_errors=True)
    # fmt: off
    sets = [*sets, f"run.dir={folder}", f"run.name={folder.name}", f"optim.total_steps={steps}", "train.precision=f32", "train.threads=1",
            "log.every_steps=20", "checkpoint.every_steps=500", "picture.every_steps=0", "eval.every_steps=0", "eval.spread_every_steps=0"]
    # fmt: on
    began, used = time.monotonic(), processor_seconds()
    splitmask("train", "--config", f"configs/{recipe}.toml", *(x for s in sets for x in ("--set", s)))
    return {"seconds": round(time.monotonic() - began, 1), "processor_seconds": round(processor_seconds() - used, 1), "steps": steps}


def ended(folder: Path, steps: int) -> bool:
    """Whether a run is there whose last step is that one."""
    return (folder / "checkpoints" / f"step-{steps:08}").exists()


def family_name(pictures: str, objective: str, seed: int, steps: int, fraction: float = 1.0) -> str:
    return f"{pictures}-{objective}-{round(100 * fraction)}pc-{steps}-s{seed}"


def family_run(args, objective: str, seed: int, steps: int, fraction: float = 1.0) -> dict:
    """Numbers of one run of the family."""
    name = family_name(args.set, objective, seed, steps, fraction)
    make = lambda: family_trained(args, args.set, objective, seed, steps, fraction) | family_measured(args.runs / name)
    return kept(args, name, make)


def family_trained(args, pictures: str, objective: str, seed: int, steps: int, fraction: float = 1.0) -> dict:
    """Trains a run of the family on that share of a set; what it took."""
    data = packed(pictures)
    name = family_name(pictures, objective, seed, steps, fraction)
    _, recipe, sets = FAMILY[objective]
    say(f"training {name}")
    words = [] if objective in WORDLESS else [f"codebook.path={data}/words-48.safetensors", *(SCENE_CROPS if pictures == "scenes" else [])]
    # fmt: off
    sets = [*sets, *words, f"run.seed={seed}", f"data.train={data}/train", f"data.val={data}/val", f"data.fraction={fraction}",
            f"optim.warmup_steps={max(1, steps // 5)}"]
    # fmt: on
    return train(args.runs / name, recipe, sets, steps)


def family_measured(folder: Path, *more: str) -> dict:
    # The names of classes that are too small to be judged fill pages and are the same for every run.
    without_names = lambda found: {key: value for key, value in found.items() if key != "left_out"}
    ask = lambda *arguments: json.loads(splitmask("eval", *arguments, "--json", *more, capture=True), object_hook=without_names)
    linear = ask("linear", str(folder), "--layers", "last", "--pool", "mean,cls")["linear"]
    mean, token = (ask("knn", str(folder), "--pool", pool)["knn"] for pool in ("mean", "cls"))
    return {"linear": linear, "knn": mean, "knn of the class token": token, "spread": ask("spread", str(folder))["spread"]}


def family_untrained(args, seed: int) -> dict:
    """SplitMask's encoder before training."""
    folder = args.runs / family_name(args.set, "splitmask", seed, args.steps)

    def measure() -> dict:
        # Trained first, so that the cost of the training is told with its own numbers.
        family_run(args, "splitmask", seed, args.steps)
        if not ended(folder, args.steps):
            family_trained(args, args.set, "splitmask", seed, args.steps)
        return family_measured(folder, "--random-init")

    return kept(args, f"{args.set}-random-init-s{seed}", measure)


def probed(run: dict, pool: str) -> float:
    """Accuracy of the linear probe of the last layer's tokens."""
    return next(probe["top1"] for probe in run["linear"]["probes"] if probe["pool"] == pool)


# How a run of the family is judged, in the order of the columns.
ACCURACIES = {
    "k-NN, mean of the patches": lambda run: run["knn"]["top1"],
    "k-NN, class token": lambda run: run["knn of the class token"]["top1"],
    "linear, mean of the patches": lambda run: probed(run, "mean"),
    "linear, class token": lambda run: probed(run, "cls"),
}


def accuracies(runs: list) -> str:
    """Cells of a row."""
    return " | ".join(spread([accuracy(run) for run in runs]) for accuracy in ACCURACIES.values())


ACCURACY_COLUMNS = " | ".join(f"{name} (%)" for name in ACCURACIES)


def family_row(name: str, runs: list) -> str:
    mean = lambda of: statistics.mean(of(r) for r in runs)
    trained = "steps" in runs[0]
    cost = f"{mean(lambda r: r['processor_seconds']):.0f}" if trained else "–"
    steps = f"{mean(lambda r: r['steps']):.0f}" if trained else "0"
    rank = mean(lambda r: r["spread"]["rank"])
    return f"| {name} | {steps} | {cost} | {accuracies(runs)} | {rank:.0f} |"


FAMILY_COLUMNS = [
    f"| | updates | processor seconds | {ACCURACY_COLUMNS} | effective rank |",
    "| --- |" + " --- |" * (3 + len(ACCURACIES)),
]


def rates(objectives: list) -> str:
    """The learning rates of the recipes, as they are now."""
    of = {}
    for o in objectives:
        name, recipe, _ = FAMILY[o]
        effective = splitmask("check-config", f"configs/{recipe}.toml", "--effective", capture=True)
        of.setdefault(re.search(r"^lr = (\S+)", effective, re.MULTILINE)[1], []).append(name)
    return ", ".join(f"{float(rate):g} ({', '.join(names)})" for rate, names in of.items())


def commits(runs: list) -> str:
    """The programs that made some runs."""
    found = list(dict.fromkeys(r["commit"] for r in runs))
    return f"Made by the program{'s' if len(found) > 1 else ''} of commit{'s' if len(found) > 1 else ''} {', '.join(found)}."


def family_note(args, objectives: list, runs: list) -> str:
    lin = runs[0]["linear"]
    return (
        f"Set: {args.set}, no duplicates; {lin['queries']} validation and {lin['references']} labelled training images of {lin['classes']} classes; "
        f"commonest class {100 * lin['majority']:.1f} %, chance {100 * lin['chance']:.1f} %. Batch 128, f32, one thread, seeds {', '.join(map(str, args.seeds))}: "
        "mean ± standard deviation over the seeds, for which validation images and shares of a set stay the same. Each objective has the settings of its recipe; rates were not "
        f"searched for: {rates(objectives)}. Random initialisation is that of SplitMask's encoder; MAE's has fixed positions. SimCLR, MoCo v3 and DINO learn by the class token, the others by the "
        f"patches. The rank is RankMe's of the mean. {commits(runs)}"
    )


def command(args, table: str, *more: str) -> str:
    """What makes a table; `more`: variables of its own."""
    words = [f"make results TABLE={table} SET={args.set}"]
    if args.seeds != [0, 1, 2]:
        words.append(f"SEEDS={','.join(map(str, args.seeds))}")
    if args.steps != UPDATES:
        words.append(f"STEPS={args.steps}")
    if table == "family" and args.minutes:
        words.append(f"MINUTES={args.minutes:g}")
    return " ".join([*words, *more])


# By how much the processor time of a run may differ from what was asked for, as a share, before the table says so.
UNEQUAL = 0.1


def timed_steps(args, run: dict) -> int:
    """Updates of `--minutes`, by what the first seed's run of equal updates cost: further seeds have as many."""
    return max(1, int(round(60 * args.minutes * run["steps"] / run["processor_seconds"], -1)))


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
    lines = [f"## The family, on {args.set}", "", f"`{command(args, 'family')}`: equal updates{' first' if args.minutes else ''}.", "", *FAMILY_COLUMNS]
    lines += [family_row(*row) for row in rows]
    timed = []
    if args.minutes:
        every = {o: timed_steps(args, runs[0]) for o, runs in equal.items()}
        # Seed by seed here too.
        for s in args.seeds:
            for o, steps in every.items():
                family_run(args, o, s, steps)
        timed = [(FAMILY[o][0], [family_run(args, o, s, steps) for s in args.seeds]) for o, steps in every.items()]
        lines += ["", f"Equal processor time, {args.minutes:g} minutes a run:", "", *FAMILY_COLUMNS]
        lines += [family_row(*row) for row in [random, *timed]]
        for name, runs in timed:
            took = statistics.mean(r["processor_seconds"] for r in runs) / (60 * args.minutes)
            if abs(took - 1) > UNEQUAL:
                lines += ["", f"**Not equal**: {name} took {took:.2f} times as long; the run of equal updates that its cost was taken from is of another program or machine (`--anew`)."]
    made = [*random[1], *(r for runs in equal.values() for r in runs), *(r for _, runs in timed for r in runs)]
    return lines + ["", family_note(args, list(FAMILY), made)]


def fractions_family(args) -> list:
    """The paper's question: who keeps its quality with few images."""
    lines = [f"## The family on fewer images, on {args.set}", ""]
    lines += [f"`{command(args, 'fractions-family')}`: after {args.steps} updates on that share of the images.", ""]
    lines += [f"| | of the images | {ACCURACY_COLUMNS} |", "| --- |" + " --- |" * (1 + len(ACCURACIES))]
    made = [family_untrained(args, s) for s in args.seeds]
    lines.append(f"| random initialisation | none | {accuracies(made)} |")
    objectives = ["supervised", "dino", "beit", "splitmask"]
    for o in objectives:
        for share in FRACTIONS_FAMILY:
            runs = [family_run(args, o, s, args.steps, share) for s in args.seeds]
            made += runs
            lines.append(f"| {FAMILY[o][0]} | {100 * share:g} % | {accuracies(runs)} |")
    paper = (
        "The paper fine-tunes here (Table 1 and Figure 2, on iNaturalist 2019); this table looks at the features as they are. Of each class at least one image is kept, so that the "
        "smallest share is larger than it says where classes are many. Supervised pre-training has the labels of its share."
    )
    return [*lines, "", paper, "", family_note(args, objectives, made)]
