#!/usr/bin/env python3
"""The training step of each objective as a PyTorch user would write it, beside ours.

    benches/objective_steps.py OBJECTIVE                    one step in eager PyTorch, timed; JSON
    benches/objective_steps.py --beside target/debug/splitmask [--only mae,dino] [--rounds 3]   both in turns; a table

OBJECTIVE: beit, splitmask, mae, simclr, moco-v3, dino, dinov2, supervised; each at the size of the demo's recipe (64 px, patches of 8, 6 layers of
128), which is also what `splitmask bench step` measures. Needs torch 2.11 (CPU will do). The eager side does what one does for speed without
changing tools: fused AdamW, scaled_dot_product_attention, crops of one size in one batch, foreach calls for the momentum teacher, logits of hidden
patches only. Data are noise, made once, as on our side. f32, one thread, one core for both (`taskset` of Linux).
"""
import argparse
import copy
import json
import math
import resource
import statistics
import subprocess
import sys
import time

SIDE, PATCH, WIDTH, DEPTH, HEADS = 64, 8, 128, 6, 2
PATCHES = (SIDE // PATCH) ** 2
# As many words as `bench step` takes where the config names no codebook.
WORDS, CLASSES = 8192, 84
NO_CODEBOOK = "codebook.path=none"
# Our recipe of each, and what it lacks for a step without data.
OURS = {
    "beit": ("ablation/beit", ["model.image=64", "model.width=0", "model.heads=0", "objective.mask.count=26", NO_CODEBOOK]),
    "splitmask": ("demo", [NO_CODEBOOK]),
    "mae": ("mae-demo", []),
    "simclr": ("simclr-demo", []),
    "moco-v3": ("moco-v3-demo", []),
    "dino": ("dino-demo", []),
    "dinov2": ("dinov2-demo", []),
    "supervised": ("supervised-demo", [f"objective.classes={CLASSES}"]),
}


def timed(step, seconds: float) -> dict:
    """Median milliseconds of a step, behind three that warm up, and peak memory of this process."""
    for _ in range(3):
        step()
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        began = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - began))
    return {"ms": statistics.median(times), "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "steps": len(times)}


def eager(objective: str, batch: int, seconds: float) -> dict:
    """Median milliseconds of a step and peak memory of this process."""
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    torch.set_num_threads(1)
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            b, n, d = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
            x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
            self.token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
            self.positions = nn.Parameter(torch.randn(1, 1 + PATCHES, WIDTH) * 0.02)
            self.mask = nn.Parameter(torch.zeros(1, 1, WIDTH))
            self.blocks, self.norm = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(DEPTH)), nn.LayerNorm(WIDTH, eps=1e-6)

        def embed(self, images):
            x = self.patches(images).flatten(2).transpose(1, 2)
            table, side = self.positions[:, 1:], SIDE // PATCH
            if x.shape[1] != PATCHES:
                grid = table.transpose(1, 2).reshape(1, WIDTH, side, side)
                table = F.interpolate(grid, size=images.shape[-1] // PATCH, mode="bicubic").flatten(2).transpose(1, 2)
            return x, table

        def encode(self, x):
            x = torch.cat([(self.token + self.positions[:, :1]).expand(len(x), -1, -1), x], 1)
            for block in self.blocks:
                x = block(x)
            return self.norm(x)

        def forward(self, images, hidden=None):
            x, table = self.embed(images)
            if hidden is not None:
                x = torch.where(hidden[..., None], self.mask, x)
            return self.encode(x + table)

    class Decoder(nn.Module):
        def __init__(self, out):
            super().__init__()
            self.mask, self.positions = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02), nn.Parameter(torch.randn(1, 1 + PATCHES, WIDTH) * 0.02)
            self.enter = nn.Linear(WIDTH, WIDTH)
            self.blocks, self.norm, self.head = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(2)), nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, out)

        def forward(self, x, seen, enter=False):
            if enter:
                x = self.enter(x)
            full = self.mask.expand(len(x), PATCHES, WIDTH).scatter(1, seen[..., None].expand(-1, -1, WIDTH), x[:, 1:])
            x = torch.cat([x[:, :1], full], 1) + self.positions
            for block in self.blocks:
                x = block(x)
            return self.norm(x)

    class Head(nn.Module):
        """DINO's: three layers, length 1, prototypes of length 1."""

        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(WIDTH, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 128))
            self.last = nn.utils.parametrizations.weight_norm(nn.Linear(128, 1024, bias=False))
            self.last.parametrizations.weight.original0.data.fill_(1)
            self.last.parametrizations.weight.original0.requires_grad_(False)

        def forward(self, x):
            return self.last(F.normalize(self.layers(x), dim=-1))

    def projection(*widths, affine=False):
        layers = []
        for i in range(len(widths) - 1):
            last = i == len(widths) - 2
            layers += [nn.Linear(widths[i], widths[i + 1], bias=False), nn.BatchNorm1d(widths[i + 1], affine=not last or affine)]
            layers += [] if last else [nn.ReLU()]
        return nn.Sequential(*layers)

    def pick(x, at):
        return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))

    def info_nce(a, b, temperature=0.2):
        logits, to = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature, torch.arange(len(a))
        return F.cross_entropy(logits, to), F.cross_entropy(logits.T, to)

    encoder = Encoder()
    images = [torch.randn(batch, 3, SIDE, SIDE) for _ in range(2)]
    order = torch.rand(batch, PATCHES).argsort(1)
    words = torch.randint(WORDS, (batch, PATCHES))
    teacher, students = None, nn.ModuleList([encoder])

    if objective == "beit":
        encoder.head = nn.Linear(WIDTH, WORDS)
        hidden = order < 26

        def loss():
            out = encoder(images[0], hidden)[:, 1:]
            return F.cross_entropy(encoder.head(out[hidden]), words[hidden])

    elif objective == "splitmask":
        decoder = Decoder(WORDS)
        students.append(decoder)
        half = PATCHES // 2
        seen, absent = torch.cat([order[:, :half], order[:, half:]]), torch.cat([order[:, half:], order[:, :half]])
        target = torch.cat([words, words]).gather(1, absent).flatten()

        def loss():
            x, table = encoder.embed(images[0])
            out = decoder(encoder.encode(pick(torch.cat([x + table] * 2), seen)), seen)[:, 1:]
            inpaint = F.cross_entropy(decoder.head(pick(out, absent)).flatten(0, 1), target)
            mean = out.mean(1)
            return inpaint + sum(info_nce(mean[:batch], mean[batch:])) / 2

    elif objective == "mae":
        decoder = Decoder(3 * PATCH**2)
        students.append(decoder)
        keep = PATCHES // 4
        seen, absent = order[:, :keep], order[:, keep:]

        def loss():
            x, table = encoder.embed(images[0])
            out = decoder(encoder.encode(pick(x + table, seen)), seen, enter=True)[:, 1:]
            side = SIDE // PATCH
            pixels = images[0].view(batch, 3, side, PATCH, side, PATCH).permute(0, 2, 4, 3, 5, 1).reshape(batch, PATCHES, -1)
            pixels = pick(pixels, absent)
            pixels = (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
            return F.mse_loss(decoder.head(pick(out, absent)), pixels)

    elif objective == "simclr":
        head = projection(WIDTH, 512, 512, 128, affine=True)
        students.append(head)

        def loss():
            z = F.normalize(head(encoder(torch.cat(images))[:, 0]), dim=1)
            logits = (z @ z.T / 0.2).fill_diagonal_(-math.inf)
            return F.cross_entropy(logits, torch.arange(2 * batch).roll(batch))

    elif objective == "moco-v3":
        head, predictor = projection(WIDTH, 512, 512, 128), projection(128, 512, 128)
        students.extend([head, predictor])
        teacher = copy.deepcopy(nn.ModuleList([encoder, head])).requires_grad_(False)

        def loss():
            both = torch.cat(images)
            # BatchNorm takes each view by itself, as in the authors' code.
            q = [predictor(head(z)) for z in encoder(both)[:, 0].chunk(2)]
            with torch.no_grad():
                k = [teacher[1](z) for z in teacher[0](both)[:, 0].chunk(2)]
            return 0.4 * (info_nce(q[0], k[1])[0] + info_nce(q[1], k[0])[0])

    elif objective in ("dino", "dinov2"):
        new = objective == "dinov2"
        head, patch_head = Head(), Head() if new else None
        students.extend([head, patch_head] if new else [head])
        teacher = copy.deepcopy(students).requires_grad_(False)
        local = torch.randn(4 * batch, 3, 32, 32)
        both = torch.cat(images)
        centre = torch.zeros(1, 1024)
        hidden = torch.cat([order, order]) < 19
        hidden[::2] = False
        weight = (1 / hidden.sum(1).clamp(min=1))[:, None].expand_as(hidden)[hidden]

        def sinkhorn(logits):
            q = (logits / 0.04).softmax(-1)
            for _ in range(3):
                q = q / q.sum(0, keepdim=True)
                q = q / q.sum(1, keepdim=True)
            return q

        def loss():
            nonlocal centre
            with torch.no_grad():
                seen = teacher[0](both)
                logits = teacher[1](seen[:, 0])
                targets = sinkhorn(logits) if new else ((logits - centre) / 0.04).softmax(-1)
                targets = targets.chunk(2)
                if not new:
                    centre = centre * 0.9 + logits.mean(0, keepdim=True) * 0.1
            tokens = encoder(both, hidden) if new else encoder(both)
            of_class = torch.cat([tokens[:, 0], encoder(local)[:, 0]])
            said = (head(of_class) / 0.1).log_softmax(-1).chunk(6)
            total = sum(-(targets[t] * said[s]).sum(-1).mean() for t in range(2) for s in range(6) if s != t) / 10
            if new:
                with torch.no_grad():
                    patch_targets = sinkhorn(teacher[2](seen[:, 1:][hidden]))
                of_patches = (patch_head(tokens[:, 1:][hidden]) / 0.1).log_softmax(-1)
                total = total - ((patch_targets * of_patches).sum(-1) * weight).sum() / (2 * batch)
                for z in tokens[:, 0].chunk(2):
                    z = F.normalize(z, dim=-1)
                    with torch.no_grad():
                        nearest = (z @ z.T).fill_diagonal_(-1).argmax(1)
                    total = total - 0.1 * (F.pairwise_distance(z, z[nearest], eps=1e-8) + 1e-8).log().mean()
            return total

    elif objective == "supervised":
        head = nn.Linear(WIDTH, CLASSES)
        students.append(head)
        labels = torch.randint(CLASSES, (batch,))

        def loss():
            # Mixup, with its targets; CutMix costs less.
            x = images[0] * 0.7 + images[0].flip(0) * 0.3
            target = F.one_hot(labels, CLASSES) * 0.9 + 0.1 / CLASSES
            return F.cross_entropy(head(encoder(x)[:, 1:].mean(1)), target * 0.7 + target.flip(0) * 0.3)

    else:
        sys.exit(f"{objective}: none of {', '.join(OURS)}")

    weights = [p for p in students.parameters() if p.requires_grad]
    decay, rest = [p for p in weights if p.ndim > 1], [p for p in weights if p.ndim <= 1]
    optim = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=1e-4, fused=True)
    follow = [] if teacher is None else [p for part in students[: len(teacher)] for p in part.parameters()]

    def step():
        optim.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(weights, 3.0)
        optim.step()
        if teacher is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(teacher.parameters()), follow, 0.01)

    return timed(step, seconds)


def ours(program: str, objective: str, batch: int, seconds: float) -> dict:
    """What `splitmask bench step` says of our step."""
    recipe, sets = OURS[objective]
    sets = [*sets, "train.precision=f32", "train.threads=1", "train.device=cpu"]
    command = [program, "bench", "step", f"configs/{recipe}.toml", "--batch", str(batch), "--seconds", str(seconds), "--json"]
    done = subprocess.run(["taskset", "-c", "0", *command, *(x for s in sets for x in ("--set", s))], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)["steps"][0]


def beside(args) -> None:
    """Both in turns, and a table of medians."""
    found = {o: ([], []) for o in args.only}
    for turn in range(args.rounds):
        for objective in args.only:
            print(f"round {turn + 1} of {args.rounds}: {objective}", file=sys.stderr, flush=True)
            mine = ours(args.beside, objective, args.batch, args.seconds)
            command = ["taskset", "-c", "0", sys.executable, __file__, objective, "--batch", str(args.batch), "--seconds", str(args.seconds)]
            theirs = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            found[objective][0].append(mine)
            found[objective][1].append(theirs)
    print("| objective | ours ms | PyTorch ms | ratio (of each round) | peak MB, ours / PyTorch |\n| --- | --- | --- | --- | --- |")
    middle = lambda rows, key: statistics.median(row[key] for row in rows)
    for objective, (mine, theirs) in found.items():
        ratios = [a["ms"] / b["ms"] for a, b in zip(mine, theirs)]
        print(
            f"| {objective} | {middle(mine, 'ms'):.0f} | {middle(theirs, 'ms'):.0f} | {statistics.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)}) | "
            f"{middle(mine, 'peak_memory_mb'):.0f} / {middle(theirs, 'peak_memory_mb'):.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objective", nargs="?", choices=list(OURS))
    parser.add_argument("--beside", metavar="SPLITMASK", help="our program; measures both in turns")
    parser.add_argument("--only", default=list(OURS), type=lambda text: text.split(","), help="objectives, with commas (default: all)")
    parser.add_argument("--batch", default=64, type=int, help="images of a step (default: 64)")
    parser.add_argument("--seconds", default=6.0, type=float, help="of steps, behind the warm-up (default: 6)")
    parser.add_argument("--rounds", default=3, type=int, help="turns (default: 3)")
    args = parser.parse_args()
    if args.beside:
        return beside(args)
    if not args.objective:
        parser.error("an objective, or --beside")
    print(json.dumps(eager(args.objective, args.batch, args.seconds)))


if __name__ == "__main__":
    main()
