"""Loads a segmentation that `splitmask export --format safetensors` wrote, with torch, timm and safetensors.

    from load_segmenter import load
    model, about = load("exports/segmenter")     # about["classes"]: names by number; about["mean"], about["std"]: of pixels in 0..1
    logits = model(images)                       # normalised B×3×S×S, S = about["image"] → B×K×S/4×S/4
    classes = torch.nn.functional.interpolate(logits, size=images.shape[-2:], mode="bilinear").argmax(1)
"""
import json
from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn


class Doubling(nn.Module):
    def __init__(self, inputs, width):
        super().__init__()
        self.weight = nn.Parameter(nn.init.zeros_(nn.ConvTranspose2d(inputs, width, 4).weight))
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return self.norm(F.conv_transpose2d(x, self.weight, stride=2, padding=1)).relu()


class Segmenter(nn.Module):
    def __init__(self, about, tensors):
        super().__init__()
        geometry = dict(img_size=about["image"], patch_size=about["patch"], embed_dim=about["width"], depth=about["depth"], num_heads=about["heads"])
        self.vit = VisionTransformer(**geometry, mlp_ratio=about["mlp_ratio"], init_values=about["layer_scale"] or None, num_classes=0)
        weights = [tensors[f"head.deconv.{n}.weight"] for n in range(about["doublings"])]
        self.head = nn.Module()
        self.head.deconv = nn.Sequential(*(Doubling(w.shape[0], w.shape[1]) for w in weights))
        self.head.classifier = nn.Conv2d(tensors["head.classifier.weight"].shape[1], len(about["classes"]), 1)

    def forward(self, x):
        patches = self.vit.forward_features(x)[:, 1:].transpose(1, 2)
        side = int(patches.shape[-1] ** 0.5)
        return self.head.classifier(self.head.deconv(patches.unflatten(2, (side, side))))


def load(folder):
    about = json.loads((Path(folder) / "segment.json").read_text())
    encoder, rest = (load_file(Path(folder) / f"{name}.safetensors") for name in ("model", "decoder"))
    model = Segmenter(about, rest).eval()
    tensors = {f"vit.{name}": t.float() for name, t in encoder.items()} | {n: t.float() for n, t in rest.items() if n.startswith("head.")}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]  # counts that a forward pass does not use
    assert not missing and not unexpected, (missing, unexpected)
    return model, about
