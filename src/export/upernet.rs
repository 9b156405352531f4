//! transformers' `UperNetForSemanticSegmentation` on its BEiT backbone, for runs of segmentation with that head.
//!
//! Not `BeitForSemanticSegmentation`, which cannot see the output of the last block.

use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::pyramid::PREFIX;
use super::{Answer, Card, ClassHead, Dtype, Encoder, ExportError, Exporter, Layout, Seen, Tensors, beit, preprocessor};
use crate::head::{AUXILIARY_MAP, POOLS, UperNetShape};

/// `--format hf-upernet`.
pub(super) struct HfUperNet;

/// Before the encoder's tensors.
const BACKBONE: &str = "backbone.";
/// Of the encoder's tensors: the last norm, through which nothing goes that is seen.
const LAST_NORM: &str = "layernorm.";
/// Before that one: transformers 5 keeps it here, 4 has no place for it and passes it over.
const ENCODER: &str = "backbone.beit.";
/// Their doublings of maps, with (ours, theirs); theirs have biases, which change nothing.
const DOUBLINGS: [(&str, &str); 3] = [
    ("neck.first", "backbone.fpn1.0"),
    ("neck.second", "backbone.fpn1.3"),
    ("neck.single", "backbone.fpn2.0"),
];
/// Batches that a BatchNorm saw: a number that PyTorch keeps and does not read.
const COUNT: &str = "num_batches_tracked";
/// What each batch normalisation holds.
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// The name that one of `BeitModel`'s tensors has in their backbone.
fn of_backbone(name: &str) -> String {
    let prefix = if name.starts_with(LAST_NORM) { ENCODER } else { BACKBONE };
    format!("{prefix}{name}")
}

/// (ours, theirs) of the convolutions with batch normalisation and the kernel of each, as far as the head has them.
fn convolutions(shape: &UperNetShape) -> Vec<(String, String, i64)> {
    let each = |n: usize, ours: &str, theirs: &str, kernel| -> Vec<(String, String, i64)> {
        (0..n)
            .map(|i| {
                (
                    format!("{ours}.{i}"),
                    format!("decode_head.{}", theirs.replace('N', &i.to_string())),
                    kernel,
                )
            })
            .collect()
    };
    let mut all = each(POOLS.len(), "pools", "psp_modules.N.1", 1);
    all.extend(each(3, "laterals", "lateral_convs.N", 1));
    all.extend(each(3, "smooth", "fpn_convs.N", 3));
    all.push(("pooled".into(), "decode_head.bottleneck".into(), 3));
    all.push(("fused".into(), "decode_head.fpn_bottleneck".into(), 3));
    if shape.auxiliary_weight > 0.0 {
        all.push(("auxiliary".into(), "auxiliary_head.convs.0".into(), 3));
    }
    all
}

/// (ours without prefix, theirs) of every tensor of the head.
fn pairs(shape: &UperNetShape) -> Vec<(String, String)> {
    let weight = |(ours, theirs): (&str, &str)| (format!("{ours}.weight"), format!("{theirs}.weight"));
    let mut all: Vec<(String, String)> = DOUBLINGS.map(weight).into();
    let norm = |ours: &str, theirs: &str| -> Vec<(String, String)> {
        NORM.map(|part| (format!("{ours}.norm.{part}"), format!("{theirs}.{part}"))).into()
    };
    all.extend(norm("neck.first", "backbone.fpn1.1"));
    for (ours, theirs, _) in convolutions(shape) {
        all.push((format!("{ours}.weight"), format!("{theirs}.conv.weight")));
        all.extend(norm(&ours, &format!("{theirs}.batch_norm")));
    }
    let mut linear = vec![("classifier", "decode_head.classifier")];
    if shape.auxiliary_weight > 0.0 {
        linear.push(("auxiliary.classifier", "auxiliary_head.classifier"));
    }
    for (ours, theirs) in linear {
        all.extend(["weight", "bias"].map(|part| (format!("{ours}.{part}"), format!("{theirs}.{part}"))));
    }
    all
}

/// The head of an encoder that was expressed in this format.
fn pyramid(encoder: &Encoder) -> (&ClassHead, UperNetShape) {
    match &encoder.head {
        Some(
            head @ ClassHead {
                seen: Seen::Blocks(shape), ..
            },
        ) => (head, *shape),
        _ => unreachable!("refused by express"),
    }
}

impl Exporter for HfUperNet {
    fn name(&self) -> &'static str {
        "hf-upernet"
    }

    fn doc(&self) -> &'static str {
        "transformers' UperNetForSemanticSegmentation, for runs with objective.head = \"upernet\""
    }

    fn express(&self, encoder: &Encoder) -> Result<Encoder, ExportError> {
        let what = match encoder.head.as_ref().map(|head| head.seen) {
            Some(Seen::Blocks(_)) => return beit::without_key_bias(encoder),
            Some(_) => "a head that tells classes of images apart",
            None => "an encoder without a UperNet",
        };
        Err(ExportError::Cannot {
            format: self.name(),
            what,
            hint: "objective.kind = \"segment\" with objective.head = \"upernet\" trains one; --format hf-beit takes an encoder alone"
                .into(),
        })
    }

    fn tensors(&self, encoder: &Encoder) -> Tensors {
        let (head, shape) = pyramid(encoder);
        let backbone = beit::backbone(encoder).into_iter();
        let mut all: Tensors = backbone.map(|(name, t)| (of_backbone(&name), t)).collect();
        for (ours, theirs) in pairs(&shape) {
            if let Some(t) = head.tensors.get(&format!("{PREFIX}{ours}")) {
                if let Some(norm) = theirs.strip_suffix("running_var") {
                    all.insert(format!("{norm}{COUNT}"), Tensor::zeros([0i64; 0], (Kind::Int64, Device::Cpu)));
                }
                all.insert(theirs, t.shallow_clone());
            }
        }
        for (_, theirs) in DOUBLINGS {
            let none = Tensor::zeros([encoder.model.dim()], (Kind::Float, Device::Cpu));
            all.insert(format!("{theirs}.bias"), none);
        }
        all
    }

    fn layout(&self, encoder: &Encoder) -> Layout {
        let (head, shape) = pyramid(encoder);
        let (d, w, classes) = (encoder.model.dim(), shape.width, head.names.len() as i64);
        let backbone = beit::backbone_layout(&encoder.model).into_iter();
        let mut all: Layout = backbone.map(|(name, dims)| (of_backbone(&name), dims)).collect();
        let norm = |all: &mut Layout, name: &str, columns: i64| {
            all.extend(NORM.map(|part| (format!("{name}.{part}"), vec![columns])));
            all.insert(format!("{name}.{COUNT}"), vec![]);
        };
        for (_, doubling) in DOUBLINGS {
            all.insert(format!("{doubling}.weight"), vec![d, d, 2, 2]);
            all.insert(format!("{doubling}.bias"), vec![d]);
        }
        norm(&mut all, "backbone.fpn1.1", d);
        for (ours, theirs, kernel) in convolutions(&shape) {
            let (inputs, outputs) = match ours.as_str() {
                "pooled" => (d + 4 * w, w),
                "fused" => (4 * w, w),
                "auxiliary" => (d, shape.auxiliary_width),
                smooth if smooth.starts_with("smooth") => (w, w),
                _ => (d, w),
            };
            all.insert(format!("{theirs}.conv.weight"), vec![outputs, inputs, kernel, kernel]);
            norm(&mut all, &format!("{theirs}.batch_norm"), outputs);
        }
        let mut heads = vec![("decode_head", w)];
        if shape.auxiliary_weight > 0.0 {
            heads.push(("auxiliary_head", shape.auxiliary_width));
        }
        for (name, inputs) in heads {
            all.insert(format!("{name}.classifier.weight"), vec![classes, inputs, 1, 1]);
            all.insert(format!("{name}.classifier.bias"), vec![classes]);
        }
        all
    }

    fn read(&self, tensors: &Tensors, like: &Encoder) -> Result<Encoder, ExportError> {
        let (head, shape) = pyramid(like);
        let own = |name: &str| {
            name.strip_prefix(ENCODER)
                .or_else(|| name.strip_prefix(BACKBONE))
                .map(str::to_owned)
        };
        let backbone: Tensors = tensors
            .iter()
            .filter_map(|(name, t)| Some((own(name)?, t.shallow_clone())))
            .collect();
        let mut found = Tensors::new();
        for (ours, theirs) in pairs(&shape) {
            let t = tensors
                .get(&theirs)
                .ok_or_else(|| ExportError::Tensors(format!("there is no {theirs}")))?;
            found.insert(format!("{PREFIX}{ours}"), t.shallow_clone());
        }
        Ok(Encoder {
            model: like.model.clone(),
            tensors: beit::read_backbone(&backbone, like)?,
            head: Some(ClassHead {
                tensors: found,
                ..head.shared()
            }),
        })
    }

    fn settings(&self, encoder: &Encoder, card: &Card, dtype: Dtype) -> Vec<(&'static str, String)> {
        let (head, shape) = pyramid(encoder);
        let mut backbone = beit::config(&encoder.model);
        backbone["out_features"] = json!(shape.blocks.map(|block| format!("stage{block}")));
        backbone["add_fpn"] = json!(true);
        backbone["reshape_hidden_states"] = json!(true);
        // Their backbone asks for it and has no default.
        backbone["batch_norm_eps"] = json!(1e-5);
        let mut config = json!({
            "architectures": ["UperNetForSemanticSegmentation"], "model_type": "upernet", "backbone_config": backbone,
            "hidden_size": shape.width, "pool_scales": POOLS, "use_auxiliary_head": shape.auxiliary_weight > 0.0,
            "auxiliary_loss_weight": shape.auxiliary_weight, "auxiliary_in_channels": encoder.model.dim(),
            "auxiliary_channels": shape.auxiliary_width, "auxiliary_num_convs": 1, "auxiliary_concat_input": false,
            "loss_ignore_index": 255, "torch_dtype": dtype.torch(),
        });
        // Which map their auxiliary head sees is no setting.
        const { assert!(AUXILIARY_MAP == 2) };
        (config["id2label"], config["label2id"]) = head.labels();
        vec![
            ("config.json", format!("{config:#}\n")),
            ("preprocessor_config.json", preprocessor(encoder, card)),
        ]
    }

    fn snippet(&self, folder: &str, _answer: Answer) -> String {
        format!(
            "from transformers import AutoImageProcessor, UperNetForSemanticSegmentation\n\
             model = UperNetForSemanticSegmentation.from_pretrained(\"{folder}\").eval()\n\
             processor = AutoImageProcessor.from_pretrained(\"{folder}\")   # squeezes a picture into a square\n\
             logits = model(**processor(images, return_tensors=\"pt\")).logits   # of pixels: bilinearly to the picture's size, then argmax(1)\n\
             names = model.config.id2label"
        )
    }

    fn library(&self) -> Option<&'static str> {
        Some("transformers")
    }
}
