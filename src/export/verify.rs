//! Whether an export is what its format says, and the same function as the checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::files::{Dtype, MODEL, VERIFICATION, read_metadata, write_tensors};
use super::{Card, Encoder, ExportError, Exporter, Tensors};

/// Pictures.
const PICTURES: i64 = 8;
/// Largest difference of a feature (after the last norm, so of order 1) between checkpoint and export in f32.
const TOLERANCE: f64 = 1e-5;
/// Largest relative error of a weight rounded to bfloat16: half a unit of its 8th bit.
const BF16: f64 = 1.0 / 256.0;

/// What a verification found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verified {
    /// Tensors of the encoder, all with the format's names and shapes.
    pub tensors: usize,
    /// Their values.
    pub values: usize,
    /// Largest difference of a feature or logit between checkpoint and export.
    pub difference: f64,
}

/// Drawn pictures, u8 B×3×S×S: waves of different length and direction, no two alike.
fn pictures(side: i64) -> Tensor {
    let ramp = Tensor::arange(side, (Kind::Double, Device::Cpu)) / side as f64;
    let (x, y) = (ramp.view([1, side]), ramp.view([side, 1]));
    let mut all = Vec::new();
    for i in 0..PICTURES {
        for channel in 0..3 {
            let (fx, fy, phase) = (
                1.0 + (3 * i + channel) as f64,
                2.0 + (5 * i % 7) as f64,
                channel as f64 + 0.3 * i as f64,
            );
            let wave = (&x * fx + &y * fy + &x * &y * 3.0 + phase).sin() * (&x * 9.0 - &y * (4.0 + i as f64)).cos();
            all.push(((wave + 1.0) * 127.5).round().to_kind(Kind::Uint8));
        }
    }
    Tensor::stack(&all, 0).view([PICTURES, 3, side, side])
}

/// Logits of the checkpoint's network, where the export holds a head.
fn expressed_logits(encoder: &Encoder, expressed: &Encoder, pixels: &Tensor) -> Result<Option<Tensor>, ExportError> {
    match expressed.head {
        Some(_) => encoder.logits(pixels),
        None => Ok(None),
    }
}

/// Reads a written export again, checks names, shapes, metadata and features against the checkpoint's `encoder`, and puts
/// [`VERIFICATION`] beside it: `images` u8, `pixels` (normalised), `tokens` B×(1+N)×D and `pooled` (mean of the patch tokens) B×D;
/// of a network with a head `logits` B×K instead of these.
///
/// # Errors
/// [`ExportError::Bad`] naming the file and the first thing that differs.
pub fn verify(folder: &Path, format: &dyn Exporter, encoder: &Encoder, card: &Card, dtype: Dtype) -> Result<Verified, ExportError> {
    let path = folder.join(MODEL);
    let bad = |detail: String| ExportError::Bad {
        path: path.clone(),
        detail,
        hint: Some("this is a bug of the export: please report it".into()),
    };
    let expressed = format.express(encoder)?;
    if read_metadata(&path)?.get("format").map(String::as_str) != Some("pt") {
        return Err(bad("its metadata lacks format = pt".into()));
    }
    let tensors: Tensors = Tensor::read_safetensors(&path)?.into_iter().collect();
    let layout = format.layout(&expressed);
    for (name, shape) in &layout {
        match tensors.get(name) {
            None => return Err(bad(format!("{name} is missing"))),
            Some(t) if &t.size() != shape => return Err(bad(format!("{name} is {:?}, the library asks for {shape:?}", t.size()))),
            Some(_) => {}
        }
    }
    if let Some(name) = tensors.keys().find(|name| !layout.contains_key(*name)) {
        return Err(bad(format!("{name} is no tensor of this format")));
    }
    for (name, want) in format.tensors(&expressed) {
        let limit = if dtype == Dtype::F32 { 0.0 } else { BF16 };
        let off = (tensors[&name].to_kind(Kind::Float) - &want).abs() - want.abs() * limit;
        if !(off.max().double_value(&[]) <= 0.0) {
            return Err(bad(format!("{name} has other values than the checkpoint")));
        }
    }
    let values = tensors.values().map(Tensor::numel).sum();
    let count = tensors.len();
    let wide: Tensors = tensors.into_iter().map(|(n, t)| (n, t.to_kind(Kind::Float))).collect();
    let reread = format.read(&wide, &expressed)?;
    let images = pictures(i64::from(encoder.model.image));
    let column = |v: [f64; 3]| Tensor::from_slice(&v).view([1, 3, 1, 1]);
    let pixels = ((images.to_kind(Kind::Double) / 255.0 - column(card.mean)) / column(card.std)).to_kind(Kind::Float);
    let (want, tokens) = (encoder.features(&pixels)?, reread.features(&pixels)?);
    let difference = (&want - &tokens).abs().max().double_value(&[]);
    if !difference.is_finite() || (dtype == Dtype::F32 && difference > TOLERANCE) {
        return Err(bad(format!(
            "features differ by {difference:.1e} from the checkpoint's; {TOLERANCE:.0e} is allowed"
        )));
    }
    let mut truth = Tensors::from([("images".into(), images)]);
    let mut difference = difference;
    match (expressed_logits(encoder, &expressed, &pixels)?, reread.logits(&pixels)?) {
        (Some(want), Some(logits)) => {
            let off = (&want - &logits).abs().max().double_value(&[]);
            if !off.is_finite() || (dtype == Dtype::F32 && off > TOLERANCE) {
                return Err(bad(format!(
                    "logits differ by {off:.1e} from the checkpoint's; {TOLERANCE:.0e} is allowed"
                )));
            }
            difference = difference.max(off);
            truth.insert("logits".into(), logits);
        }
        _ => {
            let patches = tokens.narrow(1, 1, tokens.size()[1] - 1);
            truth.insert("pooled".into(), patches.mean_dim([1i64].as_slice(), false, Kind::Float));
            truth.insert("tokens".into(), tokens);
        }
    }
    truth.insert("pixels".into(), pixels);
    let metadata = BTreeMap::from([("exporter".to_owned(), format.name().to_owned())]);
    write_tensors(&folder.join(VERIFICATION), &truth, &metadata)?;
    Ok(Verified {
        tensors: count,
        values,
        difference,
    })
}
