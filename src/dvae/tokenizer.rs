//! The finished tokenizer.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor, nn};

use super::DvaeError;
use super::file::{self, FORMAT, Header, PUBLISHED};
use super::geometry::Geometry;
use super::loss::{map_pixels, unmap_pixels};
use super::net::{Decoder, Encoder};

/// Pictures that go through the encoder at once; bounds the logits' memory.
const AT_ONCE: i64 = 32;

/// Encoder, decoder if known, and what its words look like.
#[derive(Debug)]
pub struct Dvae {
    /// What the file says.
    pub header: Header,
    /// u8 V×(3·stride²), planar: mean of the patches that got each word, if measured.
    pub display: Option<Vec<u8>>,
    /// How often each word occurred in a sample of the data, if measured.
    pub counts: Option<Vec<u64>>,
    encoder: Encoder,
    decoder: Option<Decoder>,
    vars: nn::VarStore,
    id: String,
}

impl Dvae {
    /// Of a header and trained parameters (`encoder.*`, and `decoder.*` if there is a decoder), which are copied to `device`.
    ///
    /// # Errors
    /// A parameter is missing or of another shape.
    pub(super) fn of(header: Header, tensors: &BTreeMap<String, Tensor>, device: Device) -> Result<Self, String> {
        header.geometry.validate().map_err(|e| format!("metadata: {e}"))?;
        let mut vars = nn::VarStore::new(device);
        let root = vars.root();
        let encoder = Encoder::new(&(&root / "encoder"), &header.geometry);
        let whole = tensors.keys().any(|name| name.starts_with("decoder."));
        let decoder = whole.then(|| Decoder::new(&(&root / "decoder"), &header.geometry));
        file::fill(&vars, |name| tensors.get(name).map(Tensor::shallow_clone))?;
        vars.freeze();
        Ok(Self {
            id: id(&header.geometry, &vars),
            header,
            display: None,
            counts: None,
            encoder,
            decoder,
            vars,
        })
    }

    /// Reads a file that [`Dvae::save`] wrote, or the published encoder's weights as safetensors, whose sizes are taken from the shapes.
    ///
    /// Draws from libtorch's CPU generator: seed it afterwards.
    ///
    /// # Errors
    /// [`DvaeError::Io`], or [`DvaeError::Bad`] saying what is wrong with the file.
    pub fn load(path: &Path, device: Device) -> Result<Self, DvaeError> {
        let bad = |detail: String| DvaeError::Bad {
            path: path.to_owned(),
            detail,
        };
        let (entry, mut tensors) = file::read(path)?;
        let Some(entry) = entry else {
            let (header, tensors) = published(&tensors).map_err(bad)?;
            return Self::of(header, &tensors, device).map_err(bad);
        };
        if entry["format"] != FORMAT {
            return Err(bad(format!(
                "metadata: format = {}, this program reads {FORMAT:?}",
                entry["format"]
            )));
        }
        let header = Header::of_json(&entry).map_err(bad)?;
        let (display, counts) = (tensors.remove("display"), tensors.remove("counts"));
        let mut dvae = Self::of(header, &tensors, device).map_err(bad)?;
        if entry["id"] != dvae.id {
            return Err(bad(
                "its encoder does not match the id in its metadata: the file was altered or damaged".into(),
            ));
        }
        let g = dvae.header.geometry;
        if let Some(display) = display {
            if display.size() != [g.words, 3 * g.stride * g.stride] || display.kind() != Kind::Uint8 {
                return Err(bad(format!("tensor \"display\" is {:?}", display.size())));
            }
            dvae.display = Some(Vec::<u8>::try_from(display.reshape([-1]))?);
        }
        if let Some(counts) = counts {
            if counts.size() != [g.words] {
                return Err(bad(format!("tensor \"counts\" is {:?}", counts.size())));
            }
            dvae.counts = Some(Vec::<i64>::try_from(counts)?.into_iter().map(i64::unsigned_abs).collect());
        }
        Ok(dvae)
    }

    /// Writes the file whole or not at all; the same tokenizer gives the same bytes.
    ///
    /// # Errors
    /// [`DvaeError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), DvaeError> {
        let mut tensors: Vec<(String, Tensor)> = self.vars.variables().into_iter().collect();
        let g = &self.header.geometry;
        if let Some(display) = &self.display {
            let shape = [g.words, 3 * g.stride * g.stride];
            tensors.push(("display".into(), Tensor::from_slice(display).view(shape)));
        }
        if let Some(counts) = &self.counts {
            let counts: Vec<i64> = counts.iter().map(|c| *c as i64).collect();
            tensors.push(("counts".into(), Tensor::from_slice(&counts)));
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        file::write(path, &tensors, self.header.to_json(&self.id))
    }

    /// SHA-256 (hex) of all that decides which word a place gets: sizes and the encoder's parameters.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether pictures can be rebuilt from words.
    #[must_use]
    pub fn has_decoder(&self) -> bool {
        self.decoder.is_some()
    }

    /// Numbers in the encoder.
    #[must_use]
    pub fn encoder_parameters(&self) -> i64 {
        let variables = self.vars.variables();
        let ours = variables.iter().filter(|(name, _)| name.starts_with("encoder."));
        ours.map(|(_, t)| t.numel() as i64).sum()
    }

    /// Words of pictures, without gradient and in f32 whatever autocast says elsewhere: u8 B×3×S×S on the tokenizer's device → i64
    /// B×(S÷stride)², row-major.
    pub fn words(&self, pictures: &Tensor) -> Tensor {
        tch::no_grad(|| {
            let parts: Vec<Tensor> = pictures
                .split(AT_ONCE, 0)
                .iter()
                .map(|part| self.encoder.forward(&map_pixels(part)).argmax(1, false).flatten(1, 2))
                .collect();
            Tensor::cat(&parts, 0)
        })
    }

    /// Pictures rebuilt from words i64 B×(g·g): u8 B×3×(g·stride)×(g·stride); `None` without a decoder.
    #[must_use]
    pub fn rebuild(&self, words: &Tensor, grid: i64) -> Option<Tensor> {
        let decoder = self.decoder.as_ref()?;
        Some(tch::no_grad(|| {
            let one_hot = words.view([-1, grid, grid]).one_hot(self.header.geometry.words);
            let statistics = decoder.forward(&one_hot.permute([0, 3, 1, 2]).to_kind(Kind::Float));
            unmap_pixels(&statistics.narrow(1, 0, 3).sigmoid())
        }))
    }

    /// What a word looks like: planar 3×stride×stride bytes. Where that was not measured, a colour of the word's own.
    #[must_use]
    pub fn look(&self, word: usize) -> Vec<u8> {
        let pixels = self.header.geometry.stride.pow(2) as usize;
        if let Some(display) = &self.display {
            return display[word * 3 * pixels..][..3 * pixels].to_vec();
        }
        let mixed = (word as u32).wrapping_mul(0x9e37_79b9).to_le_bytes();
        mixed[1..].iter().flat_map(|v| std::iter::repeat_n(64 + v / 2, pixels)).collect()
    }
}

/// Header and renamed tensors of openai/DALL-E's encoder.
fn published(tensors: &BTreeMap<String, Tensor>) -> Result<(Header, BTreeMap<String, Tensor>), String> {
    let shape = |name: &str| tensors.get(name).map(Tensor::size).filter(|s| s.len() == 4);
    let none = "safetensors, but no dVAE: no metadata key \"codebook\" and no tensor";
    let width = shape(PUBLISHED).ok_or_else(|| format!("{none} {PUBLISHED:?}"))?[0];
    let words = shape("blocks.output.conv.w").ok_or_else(|| format!("{none} \"blocks.output.conv.w\""))?[0];
    let there = |group: i64, block: i64| shape(&format!("blocks.group_{group}.block_{block}.res_path.conv_1.w")).is_some();
    let groups = (1..=8).take_while(|&i| there(i, 1)).count();
    let blocks = (1..=8).take_while(|&j| there(1, j)).count();
    if groups == 0 {
        return Err(format!("{none} \"blocks.group_1.block_1.res_path.conv_1.w\""));
    }
    let header = Header {
        geometry: Geometry {
            words,
            width,
            stride: 1 << (groups - 1),
            blocks: blocks as i64,
        },
        picture: 0,
        origin: "published weights".into(),
        made_by: String::new(),
        data: String::new(),
        seed: 0,
        steps: 0,
        psnr: None,
    };
    let renamed = tensors.iter().map(|(name, t)| (format!("encoder.{name}"), t.shallow_clone()));
    Ok((header, renamed.collect()))
}

fn id(g: &Geometry, vars: &nn::VarStore) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("splitmask dvae {} {} {} {}\n", g.words, g.width, g.stride, g.blocks));
    let sorted: BTreeMap<String, Tensor> = vars.variables().into_iter().filter(|(n, _)| n.starts_with("encoder.")).collect();
    for (name, t) in sorted {
        hash.update(name);
        let values = Vec::<f32>::try_from(t.to_device(Device::Cpu).reshape([-1])).unwrap_or_default();
        for block in values.chunks(4096) {
            hash.update(block.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        }
    }
    splitmask_pipeline::file::hex(hash.finalize())
}
