//! What a file of weights says before and beside its tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use tch::Tensor;

use crate::model::config::VitConfig;

/// Longest header of a safetensors file by the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Types that weights have, in the format's spelling.
const FLOATS: [&str; 4] = ["F64", "F32", "F16", "BF16"];

/// Heads of attention that weights were trained with, by the config that lies with them: of a checkpoint, or of an export. The same tensors with
/// another number of heads are another function.
pub(super) fn heads_of(from: &Path) -> Option<i64> {
    let folder = if from.is_dir() { from } else { from.parent()? };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    if let Some(text) = read("config.toml") {
        let model = toml::from_str::<toml::Table>(&text).ok()?.remove("model")?;
        return model.try_into::<VitConfig>().ok().map(|model| model.head_count());
    }
    let config: serde_json::Value = serde_json::from_str(&read("config.json")?).ok()?;
    [&config["num_attention_heads"], &config["model_args"]["num_heads"]]
        .iter()
        .find_map(|heads| heads.as_i64())
}

/// `objective.kind` that weights were trained with, and `objective.pool` where that kind has it, by the config of their checkpoint.
pub(super) fn objective_of(from: &Path) -> [Option<String>; 2] {
    let text = std::fs::read_to_string(from.join("config.toml")).unwrap_or_default();
    let config: toml::Table = toml::from_str(&text).unwrap_or_default();
    let objective = config.get("objective").and_then(toml::Value::as_table);
    ["kind", "pool"].map(|key| Some(objective?.get(key)?.as_str()?.to_owned()))
}

/// Tensors of a safetensors file, all of floating point.
///
/// # Errors
/// What is wrong with it, and a hint where there is one beyond the name of another file.
pub(super) fn read(from: &Path) -> Result<Vec<(String, Tensor)>, (String, Option<String>)> {
    let plain = |detail: String| (detail, None);
    let meta = std::fs::metadata(from).map_err(|e| plain(e.to_string()))?;
    if !meta.is_file() {
        return Err(plain("is no file of weights but a pipe, device or socket".into()));
    }
    // libtorch's own messages name neither the trouble with a file nor the tensor of a type that it does not read.
    let mut file = File::open(from).map_err(|e| plain(e.to_string()))?;
    let mut length = [0; 8];
    let mut header = vec![];
    file.read_exact(&mut length)
        .and_then(|()| file.take(u64::from_le_bytes(length).min(MAX_HEADER_BYTES)).read_to_end(&mut header))
        .map_err(|e| plain(format!("no safetensors file: {e}")))?;
    let tensors: BTreeMap<String, Value> =
        serde_json::from_slice(&header).map_err(|e| plain(format!("no safetensors file: its header is no JSON object: {e}")))?;
    let dtype = |info: &Value| info["dtype"].as_str().unwrap_or("none").to_owned();
    let strange = tensors
        .iter()
        .find(|(name, info)| *name != "__metadata__" && !FLOATS.contains(&dtype(info).as_str()));
    if let Some((name, info)) = strange {
        return Err((
            format!("{name} is of type {}, which no weight is", dtype(info)),
            Some("name a file of weights; a codebook belongs into codebook.path".into()),
        ));
    }
    Tensor::read_safetensors(from).map_err(|e| plain(e.to_string()))
}
