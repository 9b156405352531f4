//! How a vocabulary is used, as it is told.

use splitmask_pipeline::tokenize::Usage;

/// For `--json`.
pub(super) fn usage_json(u: Usage) -> serde_json::Value {
    serde_json::json!({"patches": u.total, "distinct": u.distinct, "perplexity": u.perplexity, "entropy_nats": u.entropy_nats,
        "top_share": u.top_share, "top_word": u.top_word})
}

/// For the terminal, of a vocabulary of so many words.
/// How a vocabulary of `words` is used.
pub(super) fn usage_lines(u: Usage, words: usize) -> Vec<String> {
    let v = words as f64;
    vec![
        format!("  patches counted       {:>10}", u.total),
        format!(
            "  distinct words        {:>10}   ({:.1} % of all)",
            u.distinct,
            100.0 * u.distinct as f64 / v
        ),
        format!("  perplexity            {:>10.1}   (at most {v})", u.perplexity),
        format!(
            "  marginal entropy      {:>10.3}   nats (at most {:.3}): an inpainting loss below it has learnt something",
            u.entropy_nats,
            v.ln()
        ),
        format!("  commonest word        {:>9.2} %   (word {})", 100.0 * u.top_share, u.top_word),
    ]
}
