//! The codebook's file: safetensors with `vectors` (f32 V×d), optional `display` (u8 V×d) and `counts` (u64 V), and metadata.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors, View};

use super::codebook::{Codebook, CodebookKind};
use super::pixels::PixelSpace;
use crate::error::PipelineError;

const FORMAT: &str = "splitmask-codebook-1";

struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Tensor {
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

impl Codebook {
    /// Writes the file whole or not at all: a temporary neighbour, synced, then renamed.
    ///
    /// # Errors
    /// [`PipelineError::Io`], or [`PipelineError::BadCodebook`] if this codebook is not valid; nothing is written then.
    pub fn save(&self, path: &Path) -> Result<(), PipelineError> {
        let bad = |detail: String| PipelineError::BadCodebook {
            path: path.display().to_string(),
            detail,
        };
        self.check().map_err(bad)?;
        let (v, d) = (self.len(), self.dim());
        let mut tensors = vec![(
            "vectors",
            Tensor {
                dtype: Dtype::F32,
                shape: vec![v, d],
                bytes: self.vectors.iter().flat_map(|x| x.to_le_bytes()).collect(),
            },
        )];
        if let Some(display) = &self.display {
            tensors.push((
                "display",
                Tensor {
                    dtype: Dtype::U8,
                    shape: vec![v, d],
                    bytes: display.clone(),
                },
            ));
        }
        if let Some(counts) = &self.counts {
            tensors.push((
                "counts",
                Tensor {
                    dtype: Dtype::U64,
                    shape: vec![v],
                    bytes: counts.iter().flat_map(|x| x.to_le_bytes()).collect(),
                },
            ));
        }
        // One metadata key: safetensors keeps them in a hash map, and two saves of one codebook must give the same bytes.
        let header = serde_json::json!({
            "format": FORMAT, "kind": self.kind, "patch": self.patch, "pixels": self.pixels, "seed": self.seed,
            "words": v, "provenance": self.provenance, "id": self.id(),
        });
        let metadata = HashMap::from([("codebook".to_string(), header.to_string())]);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| bad(e.to_string()))?;
        let io = |source| PipelineError::Io {
            path: path.display().to_string(),
            source,
        };
        crate::file::write(path, &bytes).map_err(io)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`PipelineError::Io`] if it cannot be read, [`PipelineError::BadCodebook`] saying what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, PipelineError> {
        let bytes = std::fs::read(path).map_err(|source| PipelineError::Io {
            path: path.display().to_string(),
            source,
        })?;
        parse(&bytes).map_err(|detail| PipelineError::BadCodebook {
            path: path.display().to_string(),
            detail,
        })
    }
}

fn parse(bytes: &[u8]) -> Result<Codebook, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| format!("not a safetensors file: {e}"))?;
    let header = metadata
        .metadata()
        .as_ref()
        .and_then(|m| m.get("codebook"))
        .ok_or("safetensors, but not a codebook: no metadata key \"codebook\"")?;
    let header: serde_json::Value = serde_json::from_str(header).map_err(|e| format!("metadata: {e}"))?;
    if header["format"] != FORMAT {
        return Err(format!("metadata: format = {}, this program reads {FORMAT:?}", header["format"]));
    }
    fn key<T: serde::de::DeserializeOwned>(header: &serde_json::Value, name: &str) -> Result<T, String> {
        serde_json::from_value(header[name].clone()).map_err(|e| format!("metadata: {name} = {}: {e}", header[name]))
    }
    let kind: CodebookKind = key(&header, "kind")?;
    let pixels: PixelSpace = key(&header, "pixels")?;
    let patch: u32 = key(&header, "patch")?;
    if !(1..=super::codebook::MAX_PATCH).contains(&patch) {
        return Err(format!("metadata: patch = {patch}: 1 to {} pixels", super::codebook::MAX_PATCH));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| format!("not a safetensors file: {e}"))?;
    let d = 3 * (patch as usize).pow(2);
    let read = |name: &str, dtype: Dtype, columns: Option<usize>| {
        let t = tensors.tensor(name).map_err(|_| format!("no tensor {name:?}"))?;
        let fits = t.dtype() == dtype && t.shape().get(1).copied() == columns && t.shape().len() == 1 + usize::from(columns.is_some());
        fits.then(|| t.data().to_vec()).ok_or_else(|| {
            format!(
                "tensor {name:?} is {:?} {:?}, expected {dtype:?} with rows of {d}",
                t.dtype(),
                t.shape()
            )
        })
    };
    let vectors = read("vectors", Dtype::F32, Some(d))?
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    let optional = |name: &str| tensors.tensor(name).is_ok();
    let display = if optional("display") {
        Some(read("display", Dtype::U8, Some(d))?)
    } else {
        None
    };
    let counts = if optional("counts") {
        Some(
            read("counts", Dtype::U64, None)?
                .as_chunks()
                .0
                .iter()
                .map(|b| u64::from_le_bytes(*b))
                .collect(),
        )
    } else {
        None
    };
    let book = Codebook {
        kind,
        patch,
        pixels,
        vectors,
        seed: key(&header, "seed")?,
        provenance: key(&header, "provenance")?,
        display,
        counts,
    };
    book.check()?;
    if header["id"] != book.id() {
        return Err("its vectors do not match the id in its metadata: the file was altered or damaged".into());
    }
    Ok(book)
}

#[cfg(test)]
mod tests {
    use super::super::codebook::Provenance;
    use super::*;

    fn book() -> Codebook {
        let mut vectors = vec![0.0; 5 * 12];
        (0..5).for_each(|i| vectors[i * 12 + i] = 1.0);
        Codebook {
            kind: CodebookKind::KMeans,
            patch: 2,
            pixels: PixelSpace::Raw,
            vectors,
            seed: u64::MAX,
            provenance: Provenance {
                data: "somewhere".into(),
                images: 3,
                ..Provenance::default()
            },
            display: Some((0..60).collect()),
            counts: Some(vec![1, 2, 3, 4, 1 << 40]),
        }
    }

    #[test]
    fn comes_back_as_saved_and_the_same_bytes_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.safetensors"), dir.path().join("b.safetensors"));
        book().save(&a).unwrap();
        book().save(&b).unwrap();
        assert_eq!(Codebook::load(&a).unwrap(), book());
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
        let mut plain = book();
        (plain.display, plain.counts) = (None, None);
        plain.save(&a).unwrap();
        assert_eq!(Codebook::load(&a).unwrap(), plain);
    }

    #[test]
    fn refuses_with_the_file_and_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words.safetensors");
        let says = |part: &str| {
            let text = Codebook::load(&path).unwrap_err().to_string();
            assert!(text.contains("words.safetensors") && text.contains(part), "{text}");
        };
        says("No such file");
        std::fs::write(&path, b"hello").unwrap();
        says("not a safetensors file");
        let none: Vec<(&str, Tensor)> = vec![];
        std::fs::write(&path, safetensors::serialize(none, None).unwrap()).unwrap();
        says("not a codebook");
        book().save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &good[..good.len() - 9]).unwrap();
        says("not a safetensors file");
        let mut flipped = good.clone();
        let at = good.windows(7).position(|w| w == b"k-means").unwrap();
        flipped[at] = b'x';
        std::fs::write(&path, &flipped).unwrap();
        says("kind = ");
        let mut scaled = book();
        scaled.vectors[0] = 0.5;
        assert!(scaled.save(&path).unwrap_err().to_string().contains("word 0 has length 0.5"));
        assert_eq!(std::fs::read(&path).unwrap(), flipped, "a refused save leaves the file alone");
    }

    #[test]
    fn notices_an_altered_vector() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        book().save(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let one = 1f32.to_le_bytes();
        let at = bytes.windows(4).position(|w| w == one).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Codebook::load(&path).unwrap_err().to_string().contains("do not match the id"));
    }

    #[test]
    fn id_depends_on_what_decides_words_and_nothing_else() {
        let a = book();
        let mut b = book();
        b.seed = 1;
        b.counts = None;
        assert_eq!(a.id(), b.id());
        b.pixels = PixelSpace::Centred;
        assert_ne!(a.id(), b.id());
    }
}
