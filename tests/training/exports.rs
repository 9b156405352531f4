//! What a run of each objective learnt, as timm and transformers are given it.

use crate::finetune::ask;
use crate::ground::Ground;

/// Formats of these libraries with a place for what an objective's defaults train: the encoder, and the head of one that tells classes apart.
fn formats(objective: &str) -> &'static [&'static str] {
    match objective {
        // Its head looks at the mean of the patches, that of ViTForImageClassification at the class token.
        "classify" | "fine-tuned" => &["timm", "hf-beit"],
        // Its head looks at the outputs of four blocks.
        "UperNet" => &["hf-upernet"],
        _ => &["timm", "hf-vit"],
    }
}

/// Exports the newest checkpoint of a run in each of these, and reads it again: names, shapes, values, and features or logits are the checkpoint's. With
/// `SPLITMASK_EXPORT_PYTHON`, an interpreter that has timm and transformers, the libraries themselves load each folder strictly and answer the same.
#[track_caller]
pub(crate) fn are_what_was_learnt(ground: &Ground, objective: &str, run: &str) {
    let python = std::env::var("SPLITMASK_EXPORT_PYTHON").ok();
    let folder = ground.path(run).display().to_string();
    for &format in formats(objective) {
        let out = ground.path(&format!("{run}-{format}")).display().to_string();
        let mut arguments = vec!["export", &folder, "--format", format, "--out", &out, "--verify"];
        if let Some(python) = &python {
            arguments.extend(["--python", python]);
        }
        let (code, told, err) = ask(&arguments);
        assert!(
            code == Some(0) && told.contains("verified: "),
            "{objective} for {format}: {told}{err}"
        );
    }
}
