#!/usr/bin/env python3
"""Loads a folder of `splitmask export` with the library it is for, and compares features.

    splitmask export runs/demo --format timm --out exports/demo --verify     # leaves verify.safetensors beside the weights
    python3 setup/verify_export.py exports/demo

Needs torch, safetensors, and timm, transformers (4.57 and 5 were tried) or torchvision. Strict loading: no tensor may be missing or left over. The
features of 8 pictures must equal those of splitmask to 1e-5; of a run that learnt classes, the logits, and the names of the classes must be there.
An export for torchvision brings its own check, which is run: `python3 FOLDER/mask_rcnn.py check`.
Exit code 0: all of it holds.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

TOLERANCE = 1e-5


def near(what: str, got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, splitmask has {tuple(want.shape)}"
    off = (got.float() - want).abs().max().item()
    assert off <= TOLERANCE, f"{what}: differs by {off:.1e} (allowed {TOLERANCE:.0e})"
    print(f"  {what}: largest difference {off:.1e}")


def check_timm(folder: Path, truth: dict, config: dict) -> None:
    import timm

    print(f"timm {timm.__version__}, torch {torch.__version__}")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(state, strict=True)
    print(f"  create_model(local-dir:…, pretrained=True) and a strict load of {len(state)} tensors")
    if "logits" in truth:
        near("logits", model(truth["pixels"]), truth["logits"])
        names = model.pretrained_cfg["label_names"]
        assert len(names) == model.num_classes == truth["logits"].shape[1], names
        print(f"  label_names: {len(names)} classes, from {names[0]!r}")
        return
    near("forward_features, all tokens", model.forward_features(truth["pixels"]), truth["tokens"])
    near("forward, mean of patch tokens", model(truth["pixels"]), truth["pooled"])
    data = timm.data.resolve_model_data_config(model)
    cfg = config["pretrained_cfg"]
    assert tuple(data["mean"]) == tuple(cfg["mean"]) and tuple(data["std"]) == tuple(cfg["std"]), data
    assert tuple(data["input_size"]) == tuple(truth["pixels"].shape[1:]) and data["interpolation"] == "bicubic", data
    head = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=10).eval()
    assert head(truth["pixels"]).shape == (8, 10)
    near("with num_classes=10, features before the head", head.forward_features(truth["pixels"]), truth["tokens"])


def check_classifier(folder: Path, truth: dict) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True, torch_dtype=torch.float32)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[what], f"{what}: {info[what]}"
    print(f"  {type(model).__name__}.from_pretrained: nothing missing, unexpected or mismatched")
    near("logits", model.eval()(pixel_values=truth["pixels"]).logits, truth["logits"])
    names = model.config.id2label
    assert len(names) == truth["logits"].shape[1] and all(model.config.label2id[name] == n for n, name in names.items()), names
    print(f"  id2label: {len(names)} classes, from {names[0]!r}")
    processor = AutoImageProcessor.from_pretrained(folder)
    near("AutoImageProcessor", processor(list(truth["images"]), return_tensors="pt")["pixel_values"], truth["pixels"])


def check_upernet(folder: Path, truth: dict) -> None:
    from transformers import AutoImageProcessor, UperNetForSemanticSegmentation

    model, info = UperNetForSemanticSegmentation.from_pretrained(folder, output_loading_info=True, torch_dtype=torch.float32)
    # The encoder's last norm, through which nothing goes that the head sees: transformers 4 has no place for it.
    unused = {f"backbone.beit.layernorm.{part}" for part in ("weight", "bias")}
    info["unexpected_keys"] = set(info["unexpected_keys"]) - unused
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[what], f"{what}: {info[what]}"
    print("  UperNetForSemanticSegmentation.from_pretrained: nothing missing or mismatched, nothing unexpected but the last norm, which nothing is seen through")
    pixels = truth["pixels"]
    if "map_logits" not in truth:
        print("  logits of pixels: not compared, for these weights were rounded (export --dtype f32 compares them)")
        return
    want = torch.nn.functional.interpolate(truth["map_logits"], size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    near("logits of pixels", model.eval()(pixel_values=pixels).logits, want)
    names = model.config.id2label
    assert len(names) == want.shape[1] and all(model.config.label2id[name] == n for n, name in names.items()), names
    print(f"  id2label: {len(names)} classes, from {names[0]!r}")
    processor = AutoImageProcessor.from_pretrained(folder)
    near("AutoImageProcessor", processor(list(truth["images"]), return_tensors="pt")["pixel_values"], pixels)


def check_transformers(folder: Path, truth: dict, config: dict) -> None:
    import transformers
    from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, BeitModel, ViTModel

    transformers.logging.set_verbosity_error()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    if config["model_type"] == "upernet":
        check_upernet(folder, truth)
        return
    if "logits" in truth:
        check_classifier(folder, truth)
        return
    kind = {"vit": ViTModel, "beit": BeitModel}[config["model_type"]]
    model, info = kind.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True, torch_dtype=torch.float32)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[what], f"{what}: {info[what]}"
    print(f"  {kind.__name__}.from_pretrained: nothing missing, unexpected or mismatched")
    near("last_hidden_state", model.eval()(pixel_values=truth["pixels"]).last_hidden_state, truth["tokens"])
    auto = AutoModel.from_pretrained(folder, add_pooling_layer=False, torch_dtype=torch.float32).eval()
    near("AutoModel", auto(pixel_values=truth["pixels"]).last_hidden_state, truth["tokens"])
    processor = AutoImageProcessor.from_pretrained(folder)
    near("AutoImageProcessor", processor(list(truth["images"]), return_tensors="pt")["pixel_values"], truth["pixels"])
    if config["model_type"] == "vit":
        classifier, info = AutoModelForImageClassification.from_pretrained(folder, num_labels=10, output_loading_info=True, torch_dtype=torch.float32)
        assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"} and not info["unexpected_keys"], info
        assert classifier(pixel_values=truth["pixels"]).logits.shape == (8, 10)
        print("  AutoModelForImageClassification: only its classifier is new")
    with tempfile.TemporaryDirectory() as again:
        model.save_pretrained(again)
        saved = load_file(Path(again) / "model.safetensors")
        ours = load_file(folder / "model.safetensors")
        same = {k: tuple(v.shape) for k, v in saved.items()} == {k: tuple(v.shape) for k, v in ours.items()}
        print(f"  save_pretrained writes {'the same' if same else 'other'} {len(saved)} names and shapes")


def check_segmenter(folder: Path, truth: dict) -> None:
    sys.path.insert(0, str(folder))
    from load_segmenter import load

    model, about = load(folder)
    print(f"load_segmenter.load: {len(about['classes'])} classes, from {about['classes'][0]!r}")
    if "map_logits" not in truth:
        print("  logits of pixels: not compared, for these weights were rounded (export --dtype f32 compares them)")
        return
    near("logits of pixels", model(truth["pixels"]), truth["map_logits"])


def check_mask_rcnn(folder: Path) -> None:
    # The script trains and finds too: what is checked is the encoder that it will do so with.
    if subprocess.run([sys.executable, folder / "mask_rcnn.py", "check"], check=False).returncode:
        sys.exit(f"{folder}/mask_rcnn.py check failed")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
    file = folder / "verify.safetensors"
    if not file.exists():
        sys.exit(f"{file} is not there: export with --verify")
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        metadata = weights.metadata()
    assert metadata["format"] == "pt", metadata
    print(f"{folder}: run {metadata['run']}, step {metadata['step']}, {metadata['weights']} weights, config {metadata['config_sha256'][:12]}…", flush=True)
    truth = load_file(file)
    torch.manual_seed(0)
    with torch.no_grad():
        if (folder / "load_segmenter.py").exists():
            check_segmenter(folder, truth)
        elif (folder / "mask_rcnn.py").exists():
            check_mask_rcnn(folder)
        elif not config:
            sys.exit("no library loads this folder by itself: splitmask compared every value and the features when it wrote verify.safetensors")
        else:
            (check_timm if "architecture" in config else check_transformers)(folder, truth, config)
    print("verified")


if __name__ == "__main__":
    main()
