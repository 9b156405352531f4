//! Files of other libraries as a start.

use super::*;

/// Export, import, the same features; at another side the positions are interpolated.
#[test]
fn imports_undo_exports() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    let images = Tensor::randn([2, 3, 24, 24], (Kind::Float, Device::Cpu));
    for (format, foreign) in [("timm", Foreign::Timm), ("timm", Foreign::Deit), ("hf-vit", Foreign::HfVit)] {
        let encoder = encoder(tiny(), QkvBias::QueryValue);
        let folder = dir.path().join(format!("{format}-{foreign:?}"));
        write(exporter(format).unwrap(), &encoder, Dtype::F32, &folder).unwrap();
        let mut imported = import(&folder.join(MODEL), foreign).unwrap();
        let m = &mut imported.encoder.model;
        assert_eq!((m.image, m.patch, m.dim(), m.layers(), hidden(m)), (24, 6, 16, 2, 48), "{format}");
        m.heads = 2;
        let off = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        let want = encoder.features(&images).unwrap();
        assert!(off(&imported.encoder.features(&images).unwrap(), &want) < 1e-5, "{format}");
        // What is written starts an objective of either kind of bias.
        let all = imported.tensors();
        assert!(off(&all["blocks.1.attn.v_bias"], &encoder.tensors["blocks.1.attn.v_bias"]) == 0.0);
        let bigger = imported.encoder.resized(36).unwrap();
        assert_eq!(bigger.tensors["pos_embed"].size(), [1, 37, 16]);
        let large = Tensor::randn([1, 3, 36, 36], (Kind::Float, Device::Cpu));
        // The encoder interpolates by itself where a picture is larger: the same.
        assert!(off(&bigger.features(&large).unwrap(), &encoder.features(&large).unwrap()) < 1e-5);
        assert!(bigger.resized(40).unwrap_err().to_string().contains("multiple"));
    }
}

#[test]
fn imports_take_models_with_heads_and_refuse_what_is_no_vit() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    let encoder = encoder(tiny(), QkvBias::Full);
    let file = |name: &str| dir.path().join(name);
    let save = |name: &str, tensors: &Tensors| write_tensors(&file(name), tensors, &BTreeMap::new()).unwrap();
    let plain = |tensors: &Tensors| -> Tensors { tensors.iter().map(|(n, t)| (n.clone(), t.copy())).collect() };
    let one = || Tensor::zeros([1], (Kind::Float, Device::Cpu));

    let mut spoilt = plain(&encoder.tensors);
    let _ = spoilt.get_mut("blocks.1.mlp.fc1.weight").unwrap().get(0).fill_(f64::NAN);
    save("spoilt", &spoilt);
    let refused = import(&file("spoilt"), Foreign::Timm).unwrap_err().to_string();
    assert!(
        refused.contains("blocks.1.mlp.fc1.weight holds values that are not finite"),
        "{refused}"
    );

    for part in [
        "attention.attention.relative_position_bias.relative_position_bias_table",
        "lambda_1",
    ] {
        let mut beit = plain(&encoder.tensors);
        beit.insert(format!("encoder.layer.0.{part}"), one());
        save("beit", &beit);
        let refused = import(&file("beit"), Foreign::HfVit).unwrap_err().to_string();
        assert!(refused.contains(part) && refused.contains("BEiT"), "{refused}");
    }

    // timm with mean pooling and a head: the last norm is called fc_norm.
    let mut timm = plain(&encoder.tensors);
    for part in ["weight", "bias"] {
        let t = timm.remove(&format!("norm.{part}")).unwrap();
        timm.insert(format!("fc_norm.{part}"), t);
    }
    timm.insert("head.weight".into(), one());
    save("timm.safetensors", &timm);
    let got = import(&file("timm.safetensors"), Foreign::Timm).unwrap();
    assert_eq!(got.ignored, ["head.weight"]);
    assert_eq!(got.encoder.tensors["norm.bias"], encoder.tensors["norm.bias"]);

    // ViTForImageClassification.
    let hf: Tensors = exporter("hf-vit")
        .unwrap()
        .tensors(&encoder)
        .into_iter()
        .map(|(n, t)| (format!("vit.{n}"), t))
        .collect();
    let mut hf = hf;
    hf.insert("classifier.bias".into(), one());
    hf.insert("vit.pooler.dense.bias".into(), one());
    save("hf.safetensors", &hf);
    let got = import(&file("hf.safetensors"), Foreign::HfVit).unwrap();
    assert_eq!(got.ignored, ["classifier.bias", "pooler.dense.bias"]);
    assert_eq!(
        got.encoder.tensors["blocks.0.attn.qkv.weight"],
        encoder.tensors["blocks.0.attn.qkv.weight"]
    );

    let refused = |name: &str, format, words: &str| {
        let e = import(&file(name), format).unwrap_err();
        let text = format!("{e} {}", e.hint().unwrap_or_default());
        assert!(
            text.contains(words) && text.contains(name),
            "{words:?} and {name:?} are not in {text}"
        );
    };
    refused("hf.safetensors", Foreign::Timm, "hf-vit");
    refused("timm.safetensors", Foreign::HfVit, "--format timm");
    timm.remove("blocks.1.norm1.bias");
    save("cut.safetensors", &timm);
    refused("cut.safetensors", Foreign::Timm, "blocks.1.norm1.bias");
    timm.insert("dist_token".into(), one());
    save("distilled.safetensors", &timm);
    refused("distilled.safetensors", Foreign::Deit, "distilled");
    fs::write(file("deit.pth"), b"PK\x03\x04rest").unwrap();
    refused("deit.pth", Foreign::Deit, "weights_only=True");
    fs::write(file("renamed.safetensors"), b"PK\x03\x04rest").unwrap();
    refused("renamed.safetensors", Foreign::Deit, "pickle");
    fs::write(file("text.safetensors"), b"hello, this is text").unwrap();
    refused("text.safetensors", Foreign::Timm, "not a safetensors file");
}
