//! The model card: where an encoder comes from and how to load it.

use std::fmt::Write;

use super::{Answer, Dtype, Encoder, Exporter, Picture, Seen, hidden};
use crate::head::UperNetShape;
use crate::objective::ClassesOf;
use crate::optim::Weights;

/// A number that was measured on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What, in words.
    pub what: String,
    /// Value.
    pub value: f64,
    /// Step at which it was measured.
    pub step: u64,
}

/// Classes of pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelClasses {
    /// Their names.
    pub names: Vec<String>,
    /// The UperNet that tells them apart; `None` = the head of transposed convolutions.
    pub pyramid: Option<UperNetShape>,
}

/// How an encoder came to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Name of the run.
    pub run: String,
    /// Step of the checkpoint.
    pub step: u64,
    /// Images seen up to there.
    pub images: u64,
    /// Images of a step.
    pub batch: u32,
    /// Seed of the run.
    pub seed: u64,
    /// Objective.
    pub objective: String,
    /// What that is, and where it is described.
    pub objective_doc: String,
    /// Address of the training shards.
    pub data: String,
    /// Share of them that was used.
    pub fraction: f64,
    /// The folder whose weights the run began with (`run.init_from`); empty = drawn ones.
    pub init_from: String,
    /// The setting by which the encoder kept those weights, where it did.
    pub frozen: Option<&'static str>,
    /// Hex SHA-256 of the codebook of visual words.
    pub codebook: String,
    /// Which weights.
    pub weights: Weights,
    /// Hex SHA-256 of the effective config.
    pub config_sha256: String,
    /// The effective config.
    pub config_toml: String,
    /// Per-channel mean of pixels in 0..1.
    pub mean: [f64; 3],
    /// Per-channel standard deviation.
    pub std: [f64; 3],
    /// Whether the run's features are class tokens instead of means of the patch tokens (`eval.pool`).
    pub class_token: bool,
    /// Share of the side that the centre crop of evaluations keeps.
    pub crop_ratio: f64,
    /// The classes of pixels that a head beside the encoder tells apart, where there is one.
    pub pixel_classes: Option<PixelClasses>,
    /// What the classes are of that it learnt with labels; `None` = it saw no label.
    pub learnt: Option<ClassesOf>,
    /// Whether what was trained beside the encoder was left out.
    pub encoder_only: bool,
    /// Losses and accuracies that are known.
    pub measured: Vec<Measured>,
    /// Pictures that the run drew; they stand in the export too.
    pub pictures: Vec<Picture>,
    /// Version and commit of this program.
    pub version: String,
}

impl Card {
    /// The card as Markdown.
    pub(super) fn text(&self, format: &dyn Exporter, encoder: &Encoder, folder: &str, dtype: Dtype) -> String {
        let m = &encoder.model;
        let mut out = String::new();
        let mut line = |text: String| {
            let _ = writeln!(out, "{text}");
        };
        let pyramid = encoder.head.as_ref().is_some_and(|head| matches!(head.seen, Seen::Blocks(_)));
        if let Some(library) = format.library() {
            line(format!(
                "---\nlibrary_name: {library}\npipeline_tag: {}\ntags:\n- {}{}\n---\n",
                match &encoder.head {
                    Some(_) if pyramid => "image-segmentation",
                    Some(_) => "image-classification",
                    None => "image-feature-extraction",
                },
                if self.learnt.is_some() { "" } else { "self-supervised\n- " },
                self.objective
            ));
        }
        let (what, ending) = match &encoder.head {
            None => self.encoder(),
            Some(head) if pyramid => (
                "a vision transformer that tells the classes of pixels apart",
                format!("A UperNet tells {} classes apart.", head.names.len()),
            ),
            Some(head) => (
                "a vision transformer that tells classes apart",
                format!("A linear head tells {} classes apart.", head.names.len()),
            ),
        };
        line(format!("# {}: {what}\n", self.run));
        line(format!(
            "{} px images in patches of {} px, {} wide, {} layers, {} heads, MLP {} wide. {ending}\n",
            m.image,
            m.patch,
            m.dim(),
            m.layers(),
            m.head_count(),
            hidden(m)
        ));
        line("## How it was trained\n\n| | |\n| --- | --- |".into());
        let three = |v: [f64; 3]| v.map(|x| x.to_string()).join(", ");
        let weights = match self.weights {
            Weights::Raw => "those of the last step",
            Weights::Ema => "moving average over the steps",
        };
        for (what, value) in [
            ("objective", format!("{}: {}", self.objective, self.objective_doc)),
            (
                "data",
                match self.fraction {
                    1.0 => format!("`{}`", self.data),
                    share => format!("`{}`, {} % of it", self.data, 100.0 * share),
                },
            ),
            ("began with", self.start()),
            (
                "steps",
                if self.step * u64::from(self.batch) == self.images {
                    format!("{} of batch {}", self.step, self.batch)
                } else {
                    format!("{}, the last of batch {}", self.step, self.batch)
                },
            ),
            ("images seen", self.images.to_string()),
            ("seed", self.seed.to_string()),
            ("weights", format!("{weights}, {}", dtype.torch())),
            (
                "codebook",
                match self.codebook.as_str() {
                    "" => "none: the objective learns no words".to_owned(),
                    sha => format!("sha256 `{sha}`"),
                },
            ),
            ("config", format!("sha256 `{}`", self.config_sha256)),
            ("program", format!("splitmask {}", self.version)),
            (
                "pixels",
                format!("bicubic; mean {}; std {} of values in 0..1", three(self.mean), three(self.std)),
            ),
        ] {
            line(format!("| {what} | {value} |"));
        }
        if !self.measured.is_empty() {
            line("\n## What was measured\n\n| what | value | at step |\n| --- | --- | --- |".into());
            for m in &self.measured {
                line(format!("| {} | {:.4} | {} |", m.what, m.value, m.step));
            }
        }
        if !self.pictures.is_empty() {
            line("\n## Pictures\n\nWhat the run drew of its images.".into());
            for picture in &self.pictures {
                let at = picture
                    .step
                    .map_or_else(|| ", at a step that nobody kept".into(), |step| format!(", step {step}"));
                let (name, file, what) = (picture.name, picture.file(), picture.what);
                line(format!("\n![{name}]({file})\n\n{name}{at}: {what}."));
            }
        }
        line(format!(
            "\n## Load it\n\n```python\n{}\n```\n",
            self.snippet(format, encoder, folder)
        ));
        let holds = match (encoder.head.is_some(), self.encoder_only) {
            (true, _) => "holds the encoder and its head; the names of the classes are in `config.json`.",
            (false, true) => "holds the encoder alone; what was trained beside it (decoder, heads) was left out.",
            (false, false) => "holds the encoder alone; what was trained beside it (decoder, heads) is in `decoder.safetensors`.",
        };
        line(format!("`model.safetensors` {holds}"));
        out
    }

    /// What that encoder answers with, with its head or without.
    pub(super) fn answer(&self, encoder: &Encoder) -> Answer {
        match (&encoder.head, self.class_token) {
            (Some(_), _) => Answer::Classes,
            (None, true) => Answer::ClassToken,
            (None, false) => Answer::MeanOfPatches,
        }
    }

    /// The weights at the start, and whether the encoder's are still those.
    fn start(&self) -> String {
        let from = match self.init_from.as_str() {
            "" => "drawn weights".to_owned(),
            folder => format!("`{folder}`"),
        };
        let kept = self.frozen.map_or_else(String::new, |setting| {
            format!("; the encoder kept those weights, only what stands beside it learnt (`{setting}`)")
        });
        format!("{from}{kept}")
    }

    /// What an encoder without a head is, and where that head is with which it learnt.
    fn encoder(&self) -> (&'static str, String) {
        let (what, [beside, left_out]) = match self.learnt {
            None => ("a vision transformer pre-trained without labels", ["; it has no head"; 2]),
            Some(ClassesOf::Images) => (
                "a vision transformer trained with labels, to tell classes of images apart",
                [
                    "; the head that tells classes apart stands beside it",
                    "; the head that tells classes apart was left out",
                ],
            ),
            Some(ClassesOf::Pixels) => (
                "a vision transformer that was fine-tuned for segmentation",
                [
                    "; the head that tells pixels apart stands beside it",
                    "; the head that tells pixels apart was left out",
                ],
            ),
            Some(ClassesOf::Objects) => (
                "a vision transformer that was fine-tuned to find objects",
                [
                    ", and was not trained; neck, pyramid and heads of Mask R-CNN stand beside it, for no loader: `splitmask predict` finds objects with the run itself",
                    ", and was not trained; neck, pyramid and heads of Mask R-CNN were left out",
                ],
            ),
        };
        let ending = if self.encoder_only { left_out } else { beside };
        (what, format!("The last norm is part of the encoder{ending}."))
    }

    /// What a run that learnt labels has learnt and `format` does not load, for a terminal; `rest`: tensors of decoder and heads.
    #[must_use]
    pub fn beside(&self, format: &dyn Exporter, encoder: &Encoder, rest: usize) -> Option<String> {
        let loaded = encoder.head.is_some() || (format.name() == "safetensors" && self.loader(encoder));
        let instead = match self.learnt? {
            _ if loaded || self.encoder_only => return None,
            ClassesOf::Images => "",
            ClassesOf::Pixels if self.pixel_classes.as_ref().is_some_and(|classes| classes.pyramid.is_some()) => {
                "; --format hf-upernet loads them"
            }
            ClassesOf::Pixels => "; --format safetensors writes a loader of both",
            ClassesOf::Objects => "; it is a start for a new detector, and `splitmask predict` finds objects with the one of the run",
        };
        Some(format!(
            "model.safetensors is the encoder alone: what it was trained with ({rest} tensors of decoder and heads) is in decoder.safetensors, which {} does not load{instead}",
            format.name()
        ))
    }

    /// Whether `load_segmenter.py` can load the encoder and its head: it knows no relative bias and no UperNet.
    pub(super) fn loader(&self, encoder: &Encoder) -> bool {
        let deconv = self.pixel_classes.as_ref().is_some_and(|classes| classes.pyramid.is_none());
        deconv && !encoder.model.relative_bias
    }

    /// How to load the folder.
    fn snippet(&self, format: &dyn Exporter, encoder: &Encoder, folder: &str) -> String {
        let loader = format.name() == "safetensors" && self.loader(encoder);
        if !loader {
            return format.snippet(folder, self.answer(encoder));
        }
        format!(
            "# load_segmenter.py of this folder: torch, timm and safetensors\n\
             from load_segmenter import load\n\
             model, about = load(\"{folder}\")          # about[\"classes\"] names the outputs, about[\"mean\"] and [\"std\"] are of pixels in 0..1\n\
             logits = model(images)                   # normalised B×3×{side}×{side}; bilinear to the image's size, then argmax(1)",
            side = encoder.model.image
        )
    }
}
