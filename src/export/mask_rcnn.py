#!/usr/bin/env python3
"""torchvision's Mask R-CNN on the encoder of this folder, for objects in COCO's form.

    python mask_rcnn.py train IMAGES train.json --out detector.pt [--epochs 12] [--size 800]
    python mask_rcnn.py find  IMAGES val.json detector.pt --out results.json
    splitmask eval detections val.json results.json --of masks
    python mask_rcnn.py check         compares the encoder with verify.safetensors (of `splitmask export --verify`)

Needs torch, torchvision, safetensors and pycocotools. The neck is the one that is used on plain vision transformers (arXiv 2106.09681 section 4.3): outputs
of four blocks at four scales. Change what you like: the folder is yours.
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, layer_scale: bool):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        if layer_scale:
            self.ls1, self.ls2 = (nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))}) for _ in range(2))
        self.layer_scale = layer_scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = self.attn["proj"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        x = x + (self.ls1["gamma"] * y if self.layer_scale else y)
        y = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + (self.ls2["gamma"] * y if self.layer_scale else y)


class Encoder(nn.Module):
    """The vision transformer, for pictures of any size: its positions are interpolated."""

    def __init__(self, config: dict):
        super().__init__()
        d, p = config["width"], config["patch"]
        self.patch, self.grid = p, config["image"] // p
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, d, p, p)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, d))
        self.blocks = nn.ModuleList(Block(d, config["heads"], config["hidden"], config["layer_scale"]) for _ in range(config["layers"]))
        self.norm = nn.LayerNorm(d, eps=1e-6)

    def positions(self, h: int, w: int) -> torch.Tensor:
        if (h, w) == (self.grid, self.grid):
            return self.pos_embed
        token, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        patches = patches.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        patches = F.interpolate(patches, (h, w), mode="bicubic", align_corners=False, antialias=False)
        return torch.cat([token, patches.flatten(2).transpose(1, 2)], 1)

    def tokens(self, images: torch.Tensor):
        """Tokens behind each block, and the size of the grid."""
        x = self.patch_embed["proj"](images)
        h, w = x.shape[-2:]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.positions(h, w)
        behind = []
        for block in self.blocks:
            x = block(x)
            behind.append(x)
        return behind, (h, w)


class Backbone(nn.Module):
    """Maps at a quarter, half, one and two patches' step, then a feature pyramid."""

    def __init__(self, config: dict, channels: int = 256):
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

        d, layers = config["width"], config["layers"]
        self.body = Encoder(config)
        # Of 12 blocks the 4th, 6th, 8th and 12th.
        self.taken = [max(1, round(layers * share)) - 1 for share in (1 / 3, 1 / 2, 2 / 3, 1)]
        # Without the bias that others give these: what follows takes it away, or has one of its own.
        up = lambda: nn.ConvTranspose2d(d, d, 2, 2, bias=False)
        self.neck = nn.ModuleList([nn.Sequential(up(), nn.BatchNorm2d(d), nn.GELU(), up()), up(), nn.Identity(), nn.MaxPool2d(2)])
        self.pyramid = FeaturePyramidNetwork([d] * 4, channels, LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: torch.Tensor) -> dict:
        behind, (h, w) = self.body.tokens(images)
        maps = [behind[n][:, 1:].transpose(1, 2).unflatten(2, (h, w)) for n in self.taken]
        return self.pyramid({str(n): scale(map) for n, (scale, map) in enumerate(zip(self.neck, maps))})


def load_encoder(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    encoder = Encoder(config)
    encoder.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()}, strict=True)
    return config, encoder


def detector(folder, classes: int, size: int = 800, pretrained: bool = True, **options):
    """torchvision's Mask R-CNN; `classes` without the background. `size`: the shorter side of pictures."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    config, encoder = load_encoder(Path(folder))
    backbone = Backbone(config)
    if pretrained:
        backbone.body.load_state_dict(encoder.state_dict())
    # Maps have steps of a quarter patch and up: anchors are as many times that as on a ResNet, 32 pixels at a step of 4.
    sides = tuple((2 * config["patch"] * 2**n,) for n in range(5))
    anchors = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 5)
    multiple = 2 * config["patch"]
    settings = dict(min_size=size, max_size=math.ceil(size * 5 / 3), image_mean=config["mean"], image_std=config["std"], size_divisible=multiple)
    return MaskRCNN(backbone, classes + 1, rpn_anchor_generator=anchors, **(settings | options))


class Objects(torch.utils.data.Dataset):
    """Pictures and objects of a file in COCO's form."""

    def __init__(self, images: Path, file: Path, flip: bool):
        from pycocotools.coco import COCO

        self.coco, self.images, self.flip = COCO(str(file)), images, flip
        self.ids = sorted(self.coco.imgs)
        # The numbers of torchvision's classes, 0 being the background.
        self.classes = {category: n + 1 for n, category in enumerate(sorted(self.coco.cats))}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int):
        from torchvision.io import ImageReadMode, decode_image

        info = self.coco.imgs[self.ids[at]]
        image = decode_image(str(self.images / info["file_name"]), mode=ImageReadMode.RGB).float() / 255
        if image.shape[1:] != (info["height"], info["width"]):
            sys.exit(f"{info['file_name']} is {image.shape[2]}×{image.shape[1]}, the annotations say {info['width']}×{info['height']}")
        found = [a for a in self.coco.imgToAnns[info["id"]] if not a.get("iscrowd") and min(a["bbox"][2:]) >= 1]
        boxes = torch.tensor([a["bbox"] for a in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [torch.from_numpy(self.coco.annToMask(a)) for a in found]
        masks = torch.stack(masks) if masks else torch.zeros((0, *image.shape[1:]), dtype=torch.uint8)
        if self.flip and torch.rand(()) < 0.5:
            image, masks = image.flip(-1), masks.flip(-1)
            boxes[:, [0, 2]] = info["width"] - boxes[:, [2, 0]]
        labels = torch.tensor([self.classes[a["category_id"]] for a in found], dtype=torch.int64)
        return image, {"boxes": boxes, "labels": labels, "masks": masks, "image_id": info["id"]}


def batches(objects: Objects, args, shuffle: bool):
    return torch.utils.data.DataLoader(objects, args.batch, shuffle=shuffle, num_workers=args.workers, collate_fn=lambda rows: list(zip(*rows)), drop_last=shuffle)


def train(args) -> None:
    """AdamW as arXiv 2112.10740 section 5.5 takes it from arXiv 2106.09681: 1e-4, decay 0.05, the rate divided by ten twice."""
    torch.manual_seed(args.seed)
    objects = Objects(args.images, args.annotations, flip=True)
    model = detector(HERE, len(objects.classes), args.size, pretrained=not args.random_init).to(args.device).train()
    plain = lambda name, p: p.ndim < 2 or "pos_embed" in name or "cls_token" in name
    groups = [{"params": [p for n, p in model.named_parameters() if p.requires_grad and plain(n, p) == without], "weight_decay": 0.0 if without else 0.05} for without in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=args.lr)
    data = batches(objects, args, shuffle=True)
    steps, step, began = args.epochs * len(data), 0, time.monotonic()
    if steps == 0:
        sys.exit(f"{len(objects)} pictures make no batch of {args.batch}: give a smaller --batch")
    warm = min(500, steps // 10 + 1)
    for _ in range(args.epochs):
        for images, targets in data:
            rate = args.lr * min(1, (step + 1) / warm) * (0.1 if step >= 0.75 * steps else 1) * (0.1 if step >= 0.92 * steps else 1)
            for group in optimizer.param_groups:
                group["lr"] = rate
            move = lambda target: {k: v.to(args.device) if torch.is_tensor(v) else v for k, v in target.items()}
            losses = model([i.to(args.device) for i in images], [move(t) for t in targets])
            total = sum(losses.values())
            if not torch.isfinite(total):
                sys.exit(f"step {step}: the loss is {total.item()}; try a smaller --lr")
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            step += 1
            if step % args.log_every == 0 or step == steps:
                told = " ".join(f"{k.removeprefix('loss_')} {v.item():.3f}" for k, v in losses.items())
                print(f"step {step} of {steps}: {told}; {(time.monotonic() - began) / step:.2f} s a step", flush=True)
    torch.save({"model": model.state_dict(), "classes": sorted(objects.coco.cats), "size": args.size}, args.out)
    print(args.out)


@torch.no_grad()
def find(args) -> None:
    from pycocotools import mask as runs

    saved = torch.load(args.detector, map_location="cpu")
    objects = Objects(args.images, args.annotations, flip=False)
    model = detector(HERE, len(saved["classes"]), args.size or saved["size"], pretrained=False).to(args.device).eval()
    model.load_state_dict(saved["model"])
    rows = []
    for images, targets in batches(objects, args, shuffle=False):
        for target, found in zip(targets, model([i.to(args.device) for i in images])):
            for box, label, score, mask in zip(*(found[k].cpu() for k in ("boxes", "labels", "scores", "masks"))):
                coded = runs.encode((mask[0] > 0.5).numpy().astype("uint8", order="F"))
                left, top, right, bottom = box.tolist()
                rows.append({"image_id": target["image_id"], "category_id": saved["classes"][label - 1], "score": score.item(),
                             "bbox": [left, top, right - left, bottom - top], "segmentation": {"size": coded["size"], "counts": coded["counts"].decode()}})
    Path(args.out).write_text(json.dumps(rows))
    print(f"{args.out}: {len(rows)} detections in {len(objects)} pictures")


@torch.no_grad()
def check(_args) -> None:
    file = HERE / "verify.safetensors"
    if not file.exists():
        sys.exit(f"{file} is not there: export with --verify")
    truth, (_, encoder) = load_file(file), load_encoder(HERE)
    behind, _ = encoder.eval().tokens(truth["pixels"])
    off = (encoder.norm(behind[-1]) - truth["tokens"]).abs().max().item()
    print(f"all tokens: largest difference {off:.1e}")
    if not off <= 1e-5:
        sys.exit("that is too much: 1e-5 is allowed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for verb, run in (("train", train), ("find", find), ("check", check)):
        p = verbs.add_parser(verb)
        p.set_defaults(run=run)
        if verb == "check":
            continue
        p.add_argument("images", type=Path, help="folder of the pictures")
        p.add_argument("annotations", type=Path, help="objects in COCO's form")
        if verb == "find":
            p.add_argument("detector", type=Path, help="what train wrote")
        p.add_argument("--out", default="detector.pt" if verb == "train" else "results.json")
        p.add_argument("--size", type=int, default=800 if verb == "train" else 0, help="shorter side of pictures, pixels (find: as trained)")
        p.add_argument("--batch", type=int, default=2)
        p.add_argument("--workers", type=int, default=2, help="processes that read pictures")
        p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        if verb == "train":
            p.add_argument("--epochs", type=int, default=12)
            p.add_argument("--lr", type=float, default=1e-4)
            p.add_argument("--seed", type=int, default=0)
            p.add_argument("--log-every", type=int, default=20)
            p.add_argument("--random-init", action="store_true", help="leave the encoder at random, to compare with")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
