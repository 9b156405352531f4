"""The tables of setup/results.py on fine-tuning: what the family's runs are worth once there are labels of images, or maps of pixels."""

import json
import statistics
from typing import NamedTuple

from family import FAMILY, SMALL, UPDATES, command, commits, ended, family_name, family_trained, kept, packed, train
from program import say, splitmask, spread

# Where fine-tuning starts.
STARTS = {"random-init": "random initialisation", **{o: FAMILY[o][0] for o in ("splitmask", "beit", "dino", "supervised")}}
# An accuracy below which nothing was learnt.
UNLEARNT = 0.01


class Task(NamedTuple):
    """What fine-tuning teaches, and how it is judged."""

    recipe: str
    image: int
    steps: int
    # Learning rates that each start is tried with.
    rates: tuple
    evaluation: str
    # Keys of its JSON with their titles: columns of the table, of which the first chooses the rate.
    numbers: dict
    # Of the labelled images, with what a title says of each.
    shares: dict
    # What a guess that sees no image scores by the first of them: a key, and what it does.
    guess: tuple
    # What is not the same for every start.
    differs: str


CLASSES = Task(
    "finetune-demo",
    48,
    240,
    (1e-3, 2e-3, 4e-3, 8e-3),
    "classify",
    {"top1": "top-1"},
    {1.0: ", all labels", 0.1: ", 10 % of the labels"},
    ("majority", "saying the commonest class always"),
    "The head looks at the mean of the patches, of DINO too, which learnt by its class token. Supervised pre-training had the labels, all of them.",
)
MAPS = Task(
    "segment-scenes",
    96,
    3000,
    (2e-3, 4e-3),
    "segment",
    {"mean_iou": "mIoU", "object_mean_iou": "mIoU of objects alone"},
    {1.0: ""},
    ("chance", "saying the commonest class of every pixel"),
    "SplitMask and BEiT saw crops of 8 to 25 % of a scene, as in the paper's section 5.2.2, DINO the crops of its recipe. Scenes have no class: the supervised "
    "start learnt those of emoji, as the paper's learnt ImageNet's, for as many updates.",
)
TASKS = {"drawings": CLASSES, "emoji": CLASSES, "scenes": MAPS}
# By arXiv 2112.10740.
ONE_THING = (
    "Pre-training on the set's own images is far above random initialisation, and SplitMask not below BEiT: 78.3 and 70.7 beside 41.0 and 37.2 on Clipart and "
    "Sketch, where BEiT was unstable, and 0.1 to 1.3 above BEiT on the five other sets (Table 6, ViT-S). DINO is above both after all of ImageNet and below "
    "both after a hundredth of it (Table 1); this set is smaller still. Of supervised pre-training on the set itself and of a tenth of the labels the paper says nothing."
)
PREDICTIONS = {
    "drawings": ONE_THING,
    "emoji": ONE_THING,
    "scenes": "Pre-training is far above random initialisation, and hardly matters which: 45.7 (SplitMask) and 45.6 (BEiT) from ADE20K's own images, 46.1 from "
    "supervised weights of ImageNet, 25.4 from random ones (Table 5, ViT-B). DINO is not there; pre-trained on COCO it is below BEiT and SplitMask in finding objects "
    "(43.7, 44.7, 45.3; Table 4, ViT-S).",
}


def fine_tuned(args, start: str, seed: int, share: float, rate: float) -> dict:
    """Numbers after fine-tuning the encoder of a run of the family on that share of the labelled images."""
    task = TASKS[args.set]
    pictures = "emoji" if (args.set, start) == ("scenes", "supervised") else args.set
    after = "" if start == "random-init" or args.steps == UPDATES else f"-after{args.steps}"
    name = f"{args.set}-{start}{after}-tuned-{round(100 * share)}pc-lr{rate:g}-s{seed}"

    def make() -> dict:
        data = packed(args.set)
        source = "" if start == "random-init" else args.runs / family_name(pictures, start, seed, args.steps)
        if source and not ended(source, args.steps):
            family_trained(args, pictures, start, seed, args.steps)
        say(f"fine-tuning {name}")
        # fmt: off
        sets = [*SMALL, f"model.image={task.image}", f"run.init_from={source}", f"run.seed={seed}", f"data.train={data}/train", f"data.val={data}/val",
                f"data.fraction={share}", f"optim.lr={rate}"]
        # fmt: on
        cost = train(args.runs / name, task.recipe, sets, task.steps)
        found = json.loads(splitmask("eval", task.evaluation, str(args.runs / name), "--json", capture=True))[task.evaluation]
        return cost | {"rate": rate} | {key: number for key, number in found.items() if isinstance(number, (int, float))}

    return kept(args, name, make, task.steps)


def beside(base: str, others: list, found: dict) -> str:
    """What others are above a start, in points; apart those that are within twice the spread, the larger one of the two."""
    told, untold = [], []
    for start in others:
        points = 100 * (statistics.mean(found[start]) - statistics.mean(found[base]))
        apart = abs(points) > 200 * max(statistics.stdev(found[start]), statistics.stdev(found[base]))
        (told if apart else untold).append(f"{STARTS[start]} {round(points, 1) + 0.0:+.1f}")
    return f"Beside {STARTS[base]}: " + "; ".join(filter(None, [", ".join(told), untold and f"within twice the spread {', '.join(untold)}"])) + "."


def came_out(column: str, found: dict) -> str:
    """The starts from best to worst, beside random initialisation and beside SplitMask; `found`: numbers of each start's seeds."""
    order = sorted(found, key=lambda start: -statistics.mean(found[start]))
    said = [f"{column}, the best first: {', '.join(STARTS[start] for start in order)}."]
    if len(found[order[0]]) == 1:
        return f"{said[0]} One seed has no spread: nothing is told apart."
    for base, left_out in (("random-init", ()), ("splitmask", ("random-init",))):
        others = [start for start in order if start not in (base, *left_out)]
        if base in found and others:
            said.append(beside(base, others, found))
    return " ".join(said)


def transfer(args) -> list:
    """What pre-training gives once there are labels."""
    task = TASKS[args.set]
    header, rows, found, made = ["start"], [], {}, []
    for said in task.shares.values():
        header += [*(title + said for title in task.numbers.values()), "rate"]
    for start in args.starts:
        cells = [STARTS[start]]
        for share, said in task.shares.items():
            # The rate is chosen with the first seed, for each start alike, on the images that are told of.
            tried = {rate: fine_tuned(args, start, args.seeds[0], share, rate)[next(iter(task.numbers))] for rate in task.rates}
            rate = max(tried, key=tried.get)
            runs = [fine_tuned(args, start, s, share, rate) for s in args.seeds]
            made += runs
            for key, title in task.numbers.items():
                values = found.setdefault(title + said, {})[start] = [run[key] for run in runs]
                cells.append(spread(values))
            cells.append(f"{rate:g}")
        rows.append(cells)
    example = fine_tuned(args, args.starts[0], args.seeds[0], 1.0, task.rates[0])
    key, guess = task.guess
    how = (
        f"Pre-trained for {args.steps} updates on the training images of the same set, then {task.steps} updates by configs/{task.recipe}.toml with 6 layers of 96 at "
        f"{task.image} px, the same for every start, and so are rates that fall towards the lower layers (layer_decay of the recipe), which hold back random weights more than learnt ones. "
        f"{task.differs} Rates {', '.join(f'{r:g}' for r in task.rates)} were tried with seed {args.seeds[0]}, the best one taken for all "
        f"seeds ({', '.join(map(str, args.seeds))}); it was chosen on the validation images, for every start alike, and the seed that chose it is among those of the mean; where it is the first or "
        f"the last of them, one beyond may do better. Mean ± standard deviation over the seeds; {example['images']} validation images; {guess} would get {100 * example[key]:.1f} %. {commits(made)}"
    )
    starts = [] if args.starts == list(STARTS) else [f"STARTS={','.join(args.starts)}"]
    lines = [f"## Fine-tuning, on {args.set}", "", f"`{command(args, 'transfer', *starts)}`: in percent, on the validation images.", ""]
    lines += [f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows]]
    lines += ["", how, "", "### What the paper would predict, and what came out", "", PREDICTIONS[args.set], ""]
    lines += [f"* {came_out(column, of)}" for column, of in found.items()]
    if len(found) > 1 and len(task.numbers) == 1:
        most, fewest = ({start: statistics.mean(values) for start, values in starts.items()} for starts in (list(found.values())[0], list(found.values())[-1]))
        gained = 100 * statistics.mean(most[start] - fewest[start] for start in most)
        lines.append(f"* All labels instead of a tenth give {gained:+.1f} points, mean of the starts" + (f": {task.steps} updates limit these numbers more than labels do." if gained < 5 else "."))
    unlearnt = [column for column, starts in found.items() if max(statistics.mean(values) for values in starts.values()) < UNLEARNT]
    if unlearnt:
        lines += ["", f"Under {100 * UNLEARNT:g} % of {', '.join(unlearnt)} is nothing: no start has learnt it in {task.steps} updates, so this table says nothing of them."]
    return lines
