//! What a file of visual words holds.

use std::path::Path;

use splitmask_pipeline::tokenize::{Codebook, usage};
use tch::Device;

use crate::dvae::{Dvae, is_dvae};
use crate::exit::CliError;

/// Description of the codebook or dVAE in `path`, as text or JSON.
pub(super) fn describe(path: &Path, json: bool) -> Result<String, CliError> {
    let learnt = is_dvae(path).map_err(|e| CliError::io(format!("{}: {e}", path.display())))?;
    let (value, mut lines, counts) = if learnt {
        let dvae = Dvae::load(path, Device::Cpu)?;
        let (h, g) = (&dvae.header, dvae.header.geometry);
        let value = serde_json::json!({"file": path, "kind": "dvae", "id": dvae.id(), "header": h, "decoder": dvae.has_decoder(),
            "encoder_parameters": dvae.encoder_parameters()});
        let lines = vec![
            format!("{}: {} words, dvae ({})", path.display(), g.words, h.origin),
            format!(
                "  a word for each {0}×{0} pixels, width {1}, {2} blocks a group, {3:.2} M parameters in the encoder, {4} decoder",
                g.stride,
                g.width,
                g.blocks,
                dvae.encoder_parameters() as f64 / 1e6,
                if dvae.has_decoder() { "a" } else { "no" }
            ),
            format!(
                "  fits any grid of patches: model.image ÷ model.patch × {} pixels; trained on {}",
                g.stride,
                if h.picture > 0 {
                    format!("{} pixels", h.picture)
                } else {
                    "pictures of a size it does not say".into()
                }
            ),
            format!("  {} steps from seed {}, data {:?}", h.steps, h.seed, h.data),
        ];
        let lines = lines
            .into_iter()
            .chain(h.psnr.map(|p| format!("  {p:.2} dB PSNR of crops rebuilt from their words")));
        (value, lines.collect::<Vec<_>>(), dvae.counts.clone())
    } else {
        let book = Codebook::load(path)?;
        let value = serde_json::json!({"file": path, "kind": book.kind, "id": book.id(), "words": book.len(), "patch": 2 * book.patch,
            "pixels": book.pixels, "seed": book.seed, "provenance": book.provenance});
        let lines = vec![
            format!(
                "{}: {} words, {}, {} pixels",
                path.display(),
                book.len(),
                book.kind.name(),
                book.pixels.name()
            ),
            format!(
                "  fits model.patch = {}; seed {}, data {:?}",
                2 * book.patch,
                book.seed,
                book.provenance.data
            ),
        ];
        (value, lines, book.counts)
    };
    if json {
        return Ok(format!("{value:#}\n"));
    }
    if let Some(counts) = counts {
        let u = usage(&counts);
        lines.push(format!(
            "  measured on {} patches: {} words occur, perplexity {:.1}, marginal entropy {:.3} nats, commonest {:.2} %",
            u.total,
            u.distinct,
            u.perplexity,
            u.entropy_nats,
            100.0 * u.top_share
        ));
    }
    Ok(lines.join("\n") + "\n")
}
