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

/// Small networks of the libraries' own classes, with drawn weights, and what they answer (tests/fixtures/make_interop.py).
#[test]
fn files_of_the_libraries_own_classes_have_the_names_that_are_asked_for_and_give_their_logits() {
    let _turn = crate::tensor::alone();
    let small = VitConfig { width: 8, ..tiny() };
    let scaled = VitConfig { layer_scale: 0.1, ..small };
    let relative = VitConfig {
        relative_bias: true,
        ..scaled
    };
    let deep = VitConfig { depth: 4, ..relative };
    let blocks = Seen::Blocks(UperNetShape {
        width: 4,
        auxiliary_width: 3,
        ..pyramid(0.4)
    });
    for (format, what, seen, model) in [
        ("timm", "token", Seen::ClassToken, small.clone()),
        ("timm", "normed-patches", Seen::NormedPatches, small.clone()),
        ("timm", "patches", Seen::Patches, scaled),
        ("hf-vit", "token", Seen::ClassToken, small.clone()),
        ("hf-beit", "token", Seen::ClassToken, small),
        ("hf-beit", "patches", Seen::Patches, relative),
        ("hf-upernet", "blocks", blocks, deep),
    ] {
        let (what, format) = (format!("{format}-{what}"), exporter(format).unwrap());
        let file = interop(&format!("{what}.safetensors"));
        let mut theirs: Tensors = Tensor::read_safetensors(file).unwrap().into_iter().collect();
        let [pixels, want] = ["pixels", "logits"].map(|name| theirs.remove(name).unwrap());
        // A file need not hold the last norm where nothing that is seen goes through it.
        let ones = || Tensor::ones([8], (Kind::Float, Device::Cpu));
        let like = Encoder {
            model,
            tensors: ["norm.weight", "norm.bias"].map(|name| (name.to_owned(), ones())).into(),
            head: Some(ClassHead {
                seen,
                names: CLASSES.map(str::to_owned).to_vec(),
                tensors: Tensors::new(),
            }),
        };
        let mut layout = format.layout(&like);
        layout.retain(|name, _| !name.starts_with("backbone.beit."));
        let named: Layout = theirs.iter().map(|(name, t)| (name.clone(), t.size())).collect();
        assert_eq!(layout, named, "{what}");
        if format.name() == "hf-upernet" {
            theirs.extend(["weight", "bias"].map(|part| (format!("backbone.beit.layernorm.{part}"), ones())));
        }

        let ours = format.read(&theirs, &like).unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut logits = ours.logits(&pixels).unwrap().unwrap();
        if want.dim() == 4 {
            logits = logits.upsample_bilinear2d([24, 24], false, None, None);
        }
        let largest = |t: &Tensor| t.abs().max().double_value(&[]);
        let off = largest(&(&logits - &want));
        assert!(logits.size() == want.size() && off < 1e-5 * largest(&want), "{what}: {off}");
        // Written again it is the same file.
        let again = format.tensors(&format.express(&ours).unwrap());
        assert!(again.keys().eq(theirs.keys()), "{what}");
        assert!(again.iter().all(|(name, t)| *t == theirs[name]), "{what}");
    }
}
