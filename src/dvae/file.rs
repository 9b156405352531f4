//! Files of tensors with one metadata entry, written whole or not at all; and what the entry of a dVAE says.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::DvaeError;
use super::geometry::Geometry;

pub(super) const FORMAT: &str = "splitmask-dvae-1";
/// A parameter that only the published encoder's file has at its root.
pub(super) const PUBLISHED: &str = "blocks.input.w";
/// How pixels are prepared; there is one way only, and the file says it for readers elsewhere.
const PIXELS: &str = "0.8*x/255+0.1";

/// What the file says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Sizes.
    #[serde(flatten)]
    pub geometry: Geometry,
    /// Side of the pictures it was trained on, pixels; 0 = unknown.
    pub picture: i64,
    /// `trained here` or where the weights come from.
    pub origin: String,
    /// Program and version that wrote the file.
    pub made_by: String,
    /// Shards it was trained on; empty = unknown.
    pub data: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Peak signal-to-noise ratio in dB of pictures rebuilt from their words alone; none = not measured.
    pub psnr: Option<f64>,
}

impl Header {
    /// As stored: with format, kind, preparation of pixels, and identity.
    pub(super) fn to_json(&self, id: &str) -> String {
        let mut value = serde_json::to_value(self).expect("plain data serialises");
        for (key, text) in [("format", FORMAT), ("kind", "dvae"), ("pixels", PIXELS), ("id", id)] {
            value[key] = text.into();
        }
        value.to_string()
    }

    pub(super) fn of_json(value: &Value) -> Result<Self, String> {
        if value["pixels"] != PIXELS {
            return Err(format!("metadata: pixels = {}, this program prepares {PIXELS:?}", value["pixels"]));
        }
        serde_json::from_value(value.clone()).map_err(|e| format!("metadata: {e}"))
    }
}

/// Whether a file is a dVAE, by its head: ours, or the published encoder.
///
/// # Errors
/// It cannot be read. A file of any other content is no error.
pub fn is_dvae(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    if file.read_exact(&mut length).is_err() {
        return Ok(false);
    }
    // safetensors' own bound on a head.
    let length = u64::from_le_bytes(length);
    if length > 100_000_000 {
        return Ok(false);
    }
    let mut head = vec![];
    file.take(length).read_to_end(&mut head)?;
    let Ok(head) = serde_json::from_slice::<Value>(&head) else {
        return Ok(false);
    };
    let entry = head["__metadata__"]["codebook"].as_str();
    let ours = entry.and_then(|text| serde_json::from_str::<Value>(text).ok());
    Ok(match ours {
        Some(value) => value["format"] == FORMAT,
        None => head.get(PUBLISHED).is_some(),
    })
}

struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Raw {
    fn of(t: &Tensor) -> Result<Self, DvaeError> {
        let t = t.detach().to_device(Device::Cpu).contiguous();
        let shape = t.size().into_iter().map(|d| d as usize).collect();
        let flat = t.reshape([-1]);
        let (dtype, bytes) = match t.kind() {
            Kind::Uint8 => (Dtype::U8, Vec::<u8>::try_from(flat)?),
            Kind::Int64 => (
                Dtype::I64,
                Vec::<i64>::try_from(flat)?.into_iter().flat_map(i64::to_le_bytes).collect(),
            ),
            _ => {
                let values = Vec::<f32>::try_from(flat.to_kind(Kind::Float))?;
                (Dtype::F32, values.into_iter().flat_map(f32::to_le_bytes).collect())
            }
        };
        Ok(Self { dtype, shape, bytes })
    }
}

impl View for &Raw {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors and the metadata entry `codebook`: a temporary neighbour, synced, then renamed.
pub(super) fn write(path: &Path, tensors: &[(String, Tensor)], entry: String) -> Result<(), DvaeError> {
    let raw = tensors.iter().map(|(name, t)| Ok((name.clone(), Raw::of(t)?)));
    let raw: Vec<(String, Raw)> = raw.collect::<Result<_, DvaeError>>()?;
    let metadata = HashMap::from([("codebook".to_owned(), entry)]);
    let bytes = safetensors::serialize(raw.iter().map(|(name, r)| (name.as_str(), r)), Some(metadata)).map_err(|e| DvaeError::Bad {
        path: path.to_owned(),
        detail: e.to_string(),
    })?;
    splitmask_pipeline::file::write(path, bytes).map_err(|source| DvaeError::Io {
        path: path.to_owned(),
        source,
    })
}

/// The metadata entry, if there is one, and all tensors in f32 (bytes and integers as they are) on the CPU.
pub(super) fn read(path: &Path) -> Result<(Option<Value>, BTreeMap<String, Tensor>), DvaeError> {
    let bytes = std::fs::read(path).map_err(|source| DvaeError::Io {
        path: path.to_owned(),
        source,
    })?;
    let bad = |detail: String| DvaeError::Bad {
        path: path.to_owned(),
        detail,
    };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(format!("not a safetensors file: {e}")))?;
    let entry = metadata.metadata().as_ref().and_then(|m| m.get("codebook"));
    let entry = entry
        .map(|text| serde_json::from_str(text).map_err(|e| bad(format!("metadata: {e}"))))
        .transpose()?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| bad(format!("not a safetensors file: {e}")))?;
    let mut found = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            Dtype::U8 => Kind::Uint8,
            Dtype::I64 => Kind::Int64,
            other => return Err(bad(format!("tensor {name:?} holds {other:?}; floating point numbers are expected"))),
        };
        let shape: Vec<i64> = view.shape().iter().map(|d| *d as i64).collect();
        let t = Tensor::f_from_data_size(view.data(), &shape, kind)?;
        let plain = matches!(kind, Kind::Uint8 | Kind::Int64);
        found.insert(name, if plain { t } else { t.to_kind(Kind::Float) });
    }
    Ok((entry, found))
}

/// Copies `from` into every variable of `vars`.
///
/// # Errors
/// Names the tensor that is missing or of another shape.
pub(super) fn fill(vars: &tch::nn::VarStore, from: impl Fn(&str) -> Option<Tensor>) -> Result<(), String> {
    let variables: BTreeMap<String, Tensor> = vars.variables().into_iter().collect();
    for (name, mut variable) in variables {
        let value = from(&name).ok_or_else(|| format!("no tensor {name:?}"))?;
        if value.size() != variable.size() {
            return Err(format!(
                "tensor {name:?} is {:?}, the sizes in the file ask for {:?}",
                value.size(),
                variable.size()
            ));
        }
        tch::no_grad(|| variable.copy_(&value));
    }
    Ok(())
}
