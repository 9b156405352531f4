//! What every format promises, and the golden lists of the libraries themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor, nn};

use super::*;
use crate::model::config::{VitConfig, VitSize};
use crate::model::{QkvBias, Vit, VitOptions};
use crate::optim::Weights;

mod cards;
mod heads;
mod imports;

fn tiny() -> VitConfig {
    VitConfig {
        size: VitSize::Nano,
        image: 24,
        patch: 6,
        width: 16,
        depth: 2,
        heads: 2,
        mlp_ratio: 3.0,
        ..VitConfig::default()
    }
}

/// An encoder whose every parameter is random, so that no mistake hides behind a zero or a one.
fn encoder(model: VitConfig, qkv_bias: QkvBias) -> Encoder {
    tch::manual_seed(5);
    let vars = nn::VarStore::new(Device::Cpu);
    let options = VitOptions {
        qkv_bias,
        ..VitOptions::plain(0.0)
    };
    let _vit = Vit::with(&vars.root(), &model, &options);
    let mut tensors: Tensors = vars.variables().into_iter().collect();
    for t in tensors.values_mut() {
        *t = Tensor::randn(t.size(), (Kind::Float, Device::Cpu)) * 0.3;
    }
    Encoder {
        model,
        tensors,
        head: None,
    }
}

/// Encoders of every kind a run can have.
fn kinds() -> Vec<(&'static str, Encoder)> {
    let scaled = VitConfig {
        layer_scale: 0.1,
        ..tiny()
    };
    let relative = VitConfig {
        relative_bias: true,
        ..scaled
    };
    vec![
        ("plain", encoder(tiny(), QkvBias::Full)),
        ("no key bias", encoder(tiny(), QkvBias::QueryValue)),
        ("LayerScale", encoder(scaled, QkvBias::Full)),
        ("LayerScale, relative bias, no key bias", encoder(relative, QkvBias::QueryValue)),
    ]
}

fn card() -> Card {
    Card {
        run: "test".into(),
        step: 7,
        images: 70,
        batch: 10,
        seed: 1,
        objective: "splitmask".into(),
        objective_doc: "split".into(),
        data: "shards".into(),
        fraction: 1.0,
        init_from: String::new(),
        frozen: None,
        codebook: "c0de".into(),
        weights: Weights::Raw,
        config_sha256: "abc".into(),
        config_toml: "[run]\n".into(),
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        class_token: false,
        crop_ratio: 0.875,
        pixel_classes: None,
        learnt: None,
        encoder_only: false,
        measured: vec![Measured {
            what: "match loss".into(),
            value: 1.25,
            step: 7,
        }],
        pictures: vec![],
        version: "0".into(),
    }
}

fn write(format: &dyn Exporter, encoder: &Encoder, dtype: Dtype, folder: &Path) -> Result<(), ExportError> {
    let rest = Tensors::from([("decoder.norm.weight".into(), Tensor::ones([3], (Kind::Float, Device::Cpu)))]);
    let what = Export {
        format,
        encoder,
        rest: &rest,
        card: &card(),
        dtype,
    };
    export(&what, folder, false)
}

/// The conformance test: a format that writes an encoder writes the tensors it says, gives the same features when read, and says how
/// it is loaded; else it refuses with a hint.
#[test]
fn every_format_keeps_the_features_of_every_encoder() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    for format in EXPORTERS {
        for (n, (kind, encoder)) in kinds().iter().enumerate() {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let what = format!("{} of {kind}, {dtype:?}", format.name());
                let folder = dir.path().join(format!("{}-{n}-{dtype:?}", format.name()));
                if let Err(e) = write(*format, encoder, dtype, &folder) {
                    // A segmentation's format asks for the head of one.
                    let lacks = format.name() == "hf-upernet" || encoder.model.relative_bias;
                    assert!(lacks && e.hint().unwrap().contains("hf-beit"), "{what}: {e}");
                    assert!(!folder.exists(), "{what}: something was written");
                    continue;
                }
                let got = verify(&folder, *format, encoder, &card(), dtype).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(got.tensors, format.layout(&format.express(encoder).unwrap()).len(), "{what}");
                assert!(got.difference < if dtype == Dtype::F32 { 1e-5 } else { 0.2 }, "{what}: {got:?}");
                assert_eq!(read_metadata(&folder.join(MODEL)).unwrap()["step"], "7", "{what}");
                let text = fs::read_to_string(folder.join("README.md")).unwrap();
                for part in [
                    "splitmask: split",
                    "match loss | 1.2500 | 7",
                    "sha256 `abc`",
                    &format.snippet(&folder.file_name().unwrap().to_string_lossy(), Answer::MeanOfPatches),
                ] {
                    assert!(text.contains(part), "{what}: {part:?} is not in {text}");
                }
                let rest = Tensor::read_safetensors(folder.join("decoder.safetensors")).unwrap();
                assert_eq!(rest.len(), 1, "{what}");
            }
        }
    }
}

#[test]
fn names_are_unique_and_found() {
    let _turn = crate::tensor::alone();
    for format in EXPORTERS {
        assert_eq!(exporter(format.name()).unwrap().doc(), format.doc());
    }
    assert!(exporter("onnx").is_none());
}

/// A file that tests/fixtures/make_interop.py wrote.
fn interop(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/interop").join(file)
}

fn golden(name: &str) -> Layout {
    let path = interop(&format!("{name}.json"));
    serde_json::from_str(&fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

#[test]
fn layouts_of_the_papers_sizes_are_the_libraries_own() {
    let _turn = crate::tensor::alone();
    for (size, name) in [(VitSize::Small, "small"), (VitSize::Base, "base")] {
        let encoder = Encoder {
            head: None,
            model: VitConfig {
                size,
                ..VitConfig::default()
            },
            tensors: Tensors::new(),
        };
        for format in ["timm", "hf-vit", "hf-beit"] {
            assert_eq!(
                exporter(format).unwrap().layout(&encoder),
                golden(&format!("{format}-{name}")),
                "{format} {name}"
            );
        }
    }
    let count = |l: &Layout| l.values().map(|s| s.iter().product::<i64>()).sum::<i64>();
    assert_eq!((golden("timm-small").len(), count(&golden("timm-small"))), (150, 21_665_664));
    assert_eq!((golden("hf-vit-base").len(), count(&golden("hf-vit-base"))), (198, 85_798_656));
}

#[test]
fn a_damaged_export_is_found() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    let (encoder, format) = (encoder(tiny(), QkvBias::Full), exporter("hf-vit").unwrap());
    let spoil: [(&str, &dyn Fn(&mut Tensors)); 4] = [
        ("is missing", &|t| drop(t.remove("layernorm.bias"))),
        ("no tensor of this format", &|t| drop(t.insert("pooler".into(), Tensor::from(1f32)))),
        ("asks for [16]", &|t| {
            drop(t.insert("layernorm.bias".into(), Tensor::zeros([3], (Kind::Float, Device::Cpu))));
        }),
        ("other values", &|t| {
            let q = &t["encoder.layer.1.attention.attention.query.weight"] * 1.001;
            t.insert("encoder.layer.1.attention.attention.query.weight".into(), q);
        }),
    ];
    for (n, (words, change)) in spoil.iter().enumerate() {
        let folder = dir.path().join(n.to_string());
        write(format, &encoder, Dtype::F32, &folder).unwrap();
        let path = folder.join(MODEL);
        let mut tensors: Tensors = Tensor::read_safetensors(&path).unwrap().into_iter().collect();
        change(&mut tensors);
        write_tensors(&path, &tensors, &BTreeMap::from([("format".into(), "pt".into())])).unwrap();
        let e = verify(&folder, format, &encoder, &card(), Dtype::F32).unwrap_err().to_string();
        assert!(e.contains(words), "{words:?} is not in {e}");
    }
}

#[test]
fn equal_weights_give_equal_bytes_and_nothing_is_overwritten() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    let (encoder, format) = (encoder(tiny(), QkvBias::Full), exporter("timm").unwrap());
    let (a, b) = (dir.path().join("x/same"), dir.path().join("y/same"));
    write(format, &encoder, Dtype::F32, &a).unwrap();
    write(format, &encoder, Dtype::F32, &b).unwrap();
    for file in [MODEL, "decoder.safetensors", "config.json", "README.md"] {
        assert_eq!(fs::read(a.join(file)).unwrap(), fs::read(b.join(file)).unwrap(), "{file}");
    }
    assert!(
        write(format, &encoder, Dtype::F32, &a)
            .unwrap_err()
            .to_string()
            .contains("not empty")
    );
    let foreign = dir.path().join("mine");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "x").unwrap();
    let rest = Tensors::new();
    let what = Export {
        format,
        encoder: &encoder,
        rest: &rest,
        card: &card(),
        dtype: Dtype::F32,
    };
    assert!(export(&what, &foreign, true).unwrap_err().to_string().contains("no export"));
    export(&what, &a, true).unwrap();
    assert!(foreign.join("thesis.txt").exists());
    // What somebody keeps beside an export is not the export's to replace.
    for name in ["results.csv", "finetuned"] {
        let path = a.join(name);
        if name.contains('.') {
            fs::write(&path, "x").unwrap();
        } else {
            fs::create_dir(&path).unwrap();
        }
        let refused = export(&what, &a, true).unwrap_err().to_string();
        assert!(refused.contains(name) && path.exists(), "{refused}");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
    // Every format may replace every other.
    for format in EXPORTERS {
        let what = Export { format: *format, ..what };
        if what.format.express(what.encoder).is_ok() {
            export(&what, &a, true).unwrap();
        }
    }
}

#[test]
fn weights_are_chosen_and_divided() {
    let _turn = crate::tensor::alone();
    let t = |v: f64| Tensor::full([1], v, (Kind::Float, Device::Cpu));
    let all = || {
        vec![
            ("cls_token".into(), t(1.0)),
            ("ema.cls_token".into(), t(2.0)),
            ("mim_head.weight".into(), t(3.0)),
            ("ema.mim_head.weight".into(), t(4.0)),
        ]
    };
    for (weights, want) in [(Weights::Raw, [1.0, 3.0]), (Weights::Ema, [2.0, 4.0])] {
        let parts = Parts::of(all(), weights, Path::new("step-1")).unwrap();
        let got = [&parts.encoder["cls_token"], &parts.rest["mim_head.weight"]].map(|t| t.double_value(&[0]));
        assert_eq!((got, parts.encoder.len(), parts.rest.len()), (want, 1, 1));
    }
    let e = Parts::of(
        all()[..1]
            .iter()
            .map(|(n, t): &(String, Tensor)| (n.clone(), t.shallow_clone()))
            .collect(),
        Weights::Ema,
        Path::new("step-1"),
    )
    .unwrap_err();
    assert!(
        e.to_string().contains("step-1") && e.hint().unwrap().contains("--weights raw"),
        "{e}"
    );
}
