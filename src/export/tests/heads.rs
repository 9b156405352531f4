//! Networks that learnt classes.

use super::*;
use crate::head::{UperNet, UperNetShape};

const CLASSES: [&str; 3] = ["cat", "dog", "fish"];

/// A UperNet of small convolutions on the four blocks of a model.
fn pyramid(auxiliary_weight: f64) -> UperNetShape {
    UperNetShape {
        blocks: [1, 2, 3, 4],
        width: 6,
        auxiliary_width: 5,
        auxiliary_weight,
        dropout: 0.1,
    }
}

/// An encoder with such a head whose every value is random.
fn segmenter(model: &VitConfig, shape: UperNetShape) -> (Encoder, Tensors) {
    let mut encoder = encoder(VitConfig { depth: 4, ..model.clone() }, QkvBias::Full);
    let vars = nn::VarStore::new(Device::Cpu);
    let _head = UperNet::new(&(vars.root() / "head" / "upernet"), encoder.model.dim(), &shape, 3);
    let mut rest: Tensors = vars.variables().into_iter().collect();
    for (name, t) in &mut rest {
        let drawn = Tensor::randn(t.size(), (Kind::Float, Device::Cpu)) * 0.3;
        *t = if name.ends_with("running_var") { drawn.abs() + 0.5 } else { drawn };
    }
    rest.insert("mask_token".into(), Tensor::zeros([1, 1, 16], (Kind::Float, Device::Cpu)));
    encoder.head = Some(ClassHead::of_pixels(&mut rest, shape, CLASSES.map(str::to_owned).to_vec()));
    assert_eq!(rest.keys().collect::<Vec<_>>(), ["mask_token"]);
    (encoder, rest)
}

/// An encoder with a head whose every value is random.
fn classifier(seen: Seen, model: VitConfig) -> (Encoder, Tensors) {
    if let Seen::Blocks(shape) = seen {
        return segmenter(&model, shape);
    }
    let mut encoder = encoder(model, QkvBias::Full);
    let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let width = encoder.model.dim();
    let mut rest = Tensors::from([
        ("head.weight".into(), random(&[3, width])),
        ("head.bias".into(), random(&[3])),
        ("mask_token".into(), random(&[1, 1, width])),
    ]);
    if seen == Seen::Patches {
        rest.insert("fc_norm.weight".into(), random(&[width]));
        rest.insert("fc_norm.bias".into(), random(&[width]));
    }
    encoder.head = ClassHead::taken_from(&mut rest, seen == Seen::ClassToken, &CLASSES.map(str::to_owned));
    assert_eq!(encoder.head.as_ref().unwrap().seen, seen);
    assert_eq!(rest.keys().collect::<Vec<_>>(), ["mask_token"]);
    (encoder, rest)
}

#[test]
fn every_format_keeps_the_logits_of_every_head_or_refuses_it() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    let relative = VitConfig {
        layer_scale: 0.1,
        relative_bias: true,
        ..tiny()
    };
    let kinds = [
        (Seen::ClassToken, tiny(), &["timm", "hf-vit", "hf-beit", "safetensors"][..]),
        (Seen::NormedPatches, tiny(), &["timm", "safetensors"]),
        (Seen::Patches, tiny(), &["timm", "hf-beit", "safetensors"]),
        (Seen::Patches, relative.clone(), &["hf-beit", "safetensors"]),
        (Seen::Blocks(pyramid(0.4)), tiny(), &["hf-upernet", "safetensors"]),
        (Seen::Blocks(pyramid(0.0)), relative, &["hf-upernet", "safetensors"]),
    ];
    for (n, (seen, model, possible)) in kinds.into_iter().enumerate() {
        for format in EXPORTERS {
            let what = format!("{} with a head on {seen:?}", format.name());
            let (encoder, rest) = classifier(seen, model.clone());
            let folder = dir.path().join(format!("{}-{n}", format.name()));
            let export_it = Export {
                format: *format,
                encoder: &encoder,
                rest: &rest,
                card: &card(),
                dtype: Dtype::F32,
            };
            let done = export(&export_it, &folder, false);
            if !possible.contains(&format.name()) {
                let refused = done.unwrap_err();
                assert!(refused.hint().is_some() && !folder.exists(), "{what}: {refused}");
                continue;
            }
            done.unwrap_or_else(|e| panic!("{what}: {e}"));
            let got = verify(&folder, *format, &encoder, &card(), Dtype::F32).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(got.difference < 1e-5, "{what}: {got:?}");
            let truth: Tensors = Tensor::read_safetensors(folder.join(VERIFICATION)).unwrap().into_iter().collect();
            let beside: Tensors = Tensor::read_safetensors(folder.join("decoder.safetensors"))
                .unwrap()
                .into_iter()
                .collect();
            let card = fs::read_to_string(folder.join("README.md")).unwrap();
            if format.name() == "safetensors" {
                // The head stands with what else was trained beside the encoder.
                let own = encoder.head.as_ref().unwrap().tensors.keys();
                assert!(
                    !truth.contains_key("logits") && own.clone().all(|name| beside.contains_key(name)),
                    "{what}"
                );
                continue;
            }
            let (logits, told, tag) = match seen {
                Seen::Blocks(_) => (vec![8, 3, 16, 16], "tells 3 classes apart", "image-segmentation"),
                _ => (vec![8, 3], "tells 3 classes apart", "image-classification"),
            };
            assert_eq!(truth["logits"].size(), logits, "{what}");
            assert_eq!(beside.keys().collect::<Vec<_>>(), ["mask_token"], "{what}");
            assert!(card.contains(told) && card.contains(tag), "{what}: {card}");
            let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
            let names = [&config["label_names"][1], &config["id2label"]["1"]];
            assert!(names.iter().any(|name| **name == "dog"), "{what}: {config:#}");
        }
    }
}

#[test]
fn a_head_of_unnamed_classes_numbers_them_and_a_run_without_one_has_none() {
    let _turn = crate::tensor::alone();
    let mut rest = Tensors::from([("head.weight".into(), Tensor::zeros([2, 4], (Kind::Float, Device::Cpu)))]);
    let head = ClassHead::taken_from(&mut rest, true, &[]).unwrap();
    assert_eq!(head.names, ["class 0", "class 1"]);
    assert!(ClassHead::taken_from(&mut rest, true, &[]).is_none());
}
