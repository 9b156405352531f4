//! Networks that learnt classes.

use super::*;

const CLASSES: [&str; 3] = ["cat", "dog", "fish"];

/// An encoder with a head whose every value is random.
fn classifier(seen: Seen, model: VitConfig) -> (Encoder, Tensors) {
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
        (Seen::Patches, relative, &["hf-beit", "safetensors"]),
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
                assert!(!truth.contains_key("logits") && beside.contains_key("head.weight"), "{what}");
                continue;
            }
            assert_eq!(truth["logits"].size(), [8, 3], "{what}");
            assert_eq!(beside.keys().collect::<Vec<_>>(), ["mask_token"], "{what}");
            assert!(
                card.contains("tells 3 classes apart") && card.contains("image-classification"),
                "{what}: {card}"
            );
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
