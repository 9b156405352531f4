//! Export folders on disk: written beside their place and renamed, equal bytes for equal weights.

use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::pictures::is_picture;
use super::{Card, Encoder, ExportError, Exporter, Tensors};

/// File of the encoder's tensors.
pub const MODEL: &str = "model.safetensors";
/// File with pictures and the features that any loader must find for them, where the export was verified.
pub const VERIFICATION: &str = "verify.safetensors";
/// File of everything else that was trained.
const REST: &str = "decoder.safetensors";
const CARD: &str = "README.md";
/// Names of the other files that any format writes ([`Exporter::settings`]).
const SETTINGS: [&str; 6] = [
    "config.json",
    "config.toml",
    "preprocessor_config.json",
    "segment.json",
    "load_segmenter.py",
    "mask_rcnn.py",
];
/// Longest header that is read: that of a model with some thousand tensors is below a MiB.
const LONGEST_HEADER: u64 = 64 << 20;

/// Number format of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32-bit floats, as trained.
    F32,
    /// bfloat16: half the size, 8 bits of precision.
    Bf16,
}

impl Dtype {
    fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }

    /// PyTorch's name.
    #[must_use]
    pub fn torch(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ExportError + '_ {
    move |source| ExportError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Writes a safetensors file with metadata. Written here because the crate keeps metadata in a hash map, so that two exports of one
/// checkpoint would differ, and tch writes none.
///
/// # Errors
/// [`ExportError::Io`].
pub fn write_tensors(path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Result<(), ExportError> {
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut end = 0;
    for (name, t) in tensors {
        let start = end;
        end += t.numel() * t.kind().elt_size_in_bytes();
        let dtype = match t.kind() {
            Kind::Float => "F32",
            Kind::BFloat16 => "BF16",
            Kind::Uint8 => "U8",
            Kind::Int64 => "I64",
            other => return Err(ExportError::Tensors(format!("{name} holds {other:?}, which is not exported"))),
        };
        header.insert(
            name.clone(),
            json!({ "dtype": dtype, "shape": t.size(), "data_offsets": [start, end] }),
        );
    }
    let mut text = Value::Object(header).to_string();
    // The data starts at a multiple of 8 bytes.
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let file = File::create(path).map_err(io(path))?;
    let mut out = BufWriter::new(&file);
    let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(io(path));
    put(&(text.len() as u64).to_le_bytes())?;
    put(text.as_bytes())?;
    for t in tensors.values() {
        let t = t.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; t.numel() * t.kind().elt_size_in_bytes()];
        t.f_copy_data_u8(&mut bytes, t.numel())?;
        put(&bytes)?;
    }
    out.flush().map_err(io(path))?;
    drop(out);
    file.sync_all().map_err(io(path))
}

/// The metadata of a safetensors file; empty if it has none.
///
/// # Errors
/// [`ExportError::Io`], or [`ExportError::Bad`] for another kind of file.
pub fn read_metadata(path: &Path) -> Result<BTreeMap<String, String>, ExportError> {
    let bad = |detail: String| ExportError::Bad {
        path: path.to_owned(),
        detail,
        hint: None,
    };
    let mut file = File::open(path).map_err(io(path))?;
    let mut length = [0u8; 8];
    file.read_exact(&mut length).map_err(|_| bad("not a safetensors file".into()))?;
    let length = u64::from_le_bytes(length);
    let mut text = Vec::new();
    file.take(length.min(LONGEST_HEADER)).read_to_end(&mut text).map_err(io(path))?;
    let header: Value = serde_json::from_slice(&text).map_err(|_| bad("not a safetensors file".into()))?;
    let pairs = header["__metadata__"].as_object().into_iter().flatten();
    Ok(pairs.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
}

/// What is to be exported.
pub struct Export<'a> {
    /// The format.
    pub format: &'a dyn Exporter,
    /// The encoder, not yet expressed in the format.
    pub encoder: &'a Encoder,
    /// Decoder and heads.
    pub rest: &'a Tensors,
    /// How it came to be.
    pub card: &'a Card,
    /// Number format.
    pub dtype: Dtype,
}

impl Export<'_> {
    /// Metadata of the tensor files.
    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("format".into(), "pt".into()),
            ("run".into(), self.card.run.clone()),
            ("step".into(), self.card.step.to_string()),
            ("config_sha256".into(), self.card.config_sha256.clone()),
            ("weights".into(), self.card.weights.name().into()),
        ])
    }

    fn write_into(&self, folder: &Path, name: &str) -> Result<(), ExportError> {
        let expressed = self.format.express(self.encoder)?;
        // Counts stay whole numbers.
        let kind = |t: &Tensor| if t.is_floating_point() { self.dtype.kind() } else { t.kind() };
        let cast = |tensors: Tensors| -> Tensors { tensors.into_iter().map(|(n, t)| (n, t.to_kind(kind(&t)))).collect() };
        // A head that the format has no place for stands beside decoder and other heads.
        let left = self
            .encoder
            .head
            .iter()
            .filter(|_| expressed.head.is_none())
            .flat_map(|head| &head.tensors);
        let rest: Tensors = self.rest.iter().chain(left).map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        let metadata = self.metadata();
        write_tensors(&folder.join(MODEL), &cast(self.format.tensors(&expressed)), &metadata)?;
        if !rest.is_empty() || expressed.head.is_none() {
            write_tensors(&folder.join(REST), &cast(rest), &metadata)?;
        }
        let card = self.card.text(self.format, &expressed, name, self.dtype);
        let settings = self.format.settings(&expressed, self.card, self.dtype);
        for (file, text) in settings.into_iter().chain([(CARD, card)]) {
            let path = folder.join(file);
            fs::write(&path, text).map_err(io(&path))?;
        }
        for picture in &self.card.pictures {
            let path = folder.join(picture.file());
            fs::write(&path, &picture.png).map_err(io(&path))?;
        }
        Ok(())
    }
}

/// The first entry of `folder` that no export writes: --force replaces exports, not what somebody keeps beside one.
fn foreign(folder: &Path) -> std::io::Result<Option<String>> {
    let mut names = vec![];
    // A picture that the card does not show is somebody's own.
    let card = fs::read_to_string(folder.join(CARD)).unwrap_or_default();
    let is_shown = |file: &str| is_picture(file) && card.contains(&format!("]({file})"));
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let file = name.as_str();
                let ours = [MODEL, REST, CARD, VERIFICATION].contains(&file) || SETTINGS.contains(&file) || is_shown(file);
                if !ours || entry.file_type()?.is_dir() {
                    names.push(name);
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    names.sort();
    Ok(names.into_iter().next())
}

/// Writes an export into `folder`, which must be absent or empty, or a former export with `replace`.
///
/// # Errors
/// [`ExportError`]; then nothing of the new export is left and what stood in the folder still does.
pub fn export(what: &Export<'_>, folder: &Path, replace: bool) -> Result<(), ExportError> {
    let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    let bad = |detail: &str, hint: Option<&str>| ExportError::Bad {
        path: folder.to_owned(),
        detail: detail.into(),
        hint: hint.map(Into::into),
    };
    if folder.exists() && !folder.is_dir() {
        return Err(bad("is a file; an export is a folder", None));
    }
    if occupied && !replace {
        return Err(bad(
            "the folder is not empty",
            Some("name another --out, or give --force to replace an export"),
        ));
    }
    if occupied && !(folder.join(MODEL).exists() && folder.join(CARD).exists()) {
        return Err(bad(
            "the folder holds something that is no export; it is not replaced",
            Some("name another --out"),
        ));
    }
    if let Some(foreign) = foreign(folder).map_err(io(folder))? {
        return Err(bad(
            &format!("{foreign:?} in it was written by no export; the folder is not replaced"),
            Some("move it elsewhere, or name another --out"),
        ));
    }
    let name = folder
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .ok_or_else(|| bad("names no folder", None))?;
    let temporary = folder.with_file_name(format!(".{name}.partial-{}", std::process::id()));
    let _ = fs::remove_dir_all(&temporary);
    fs::create_dir_all(&temporary).map_err(io(&temporary))?;
    let written = what.write_into(&temporary, &name).and_then(|()| put_in_place(&temporary, folder));
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written
}

/// Gives a folder that is written the name of another one. Until the new one has it, the old one is there, under its name or under one that says what it is.
fn put_in_place(written: &Path, folder: &Path) -> Result<(), ExportError> {
    if !folder.exists() {
        return fs::rename(written, folder).map_err(io(folder));
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let old = folder.with_file_name(format!(".{name}.replaced-{}", std::process::id()));
    // One of an earlier process with that number: the folder itself is there, so it is of no use.
    let _ = fs::remove_dir_all(&old);
    fs::rename(folder, &old).map_err(io(&old))?;
    if let Err(error) = fs::rename(written, folder) {
        // As it was; where that fails too, the message names where it lies.
        let back = fs::rename(&old, folder);
        let place = if back.is_ok() { folder } else { &old };
        return Err(io(place)(error));
    }
    if let Err(error) = fs::remove_dir_all(&old) {
        tracing::warn!(folder = %old.display(), %error, "the export that was replaced could not be removed; it is of no more use");
    }
    Ok(())
}
