//! How all ranks begin alike: the same config, words and shards, and the state that rank 0 has read or drawn.

use splitmask_pipeline::cursor::Cursor;
use tch::Tensor;

use super::peers::Peers;
use crate::checkpoint::Progress;
use crate::trainer::error::TrainError;
use crate::trainer::spec::TrainerSpec;

/// Keys that belong to one process: ranks may have them otherwise.
const LOCAL: [&str; 6] = [
    "admin.",
    "log.filter",
    "log.tensorboard",
    "pipeline.cache_dir",
    "pipeline.workers",
    "train.threads",
];

impl Peers {
    /// Refuses ranks with another config; keys that belong to one process are left out. `flat` is one `key = value` a line.
    ///
    /// # Errors
    /// Who differs, and in which key; a lost rank.
    pub(in crate::trainer) fn agree_on_config(&self, spec: &TrainerSpec) -> Result<(), TrainError> {
        self.agree("the config", &shared_keys(&spec.config_toml))
    }

    /// Tells all ranks what rank 0 has read from its checkpoint, tensors left out.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn share_progress(&self, own: Option<&Progress>) -> Result<Option<Progress>, TrainError> {
        let text = own.map_or_else(Vec::new, |p| serde_json::to_vec(p).expect("progress is JSON"));
        let heard = self.of_first(&text)?;
        if heard.is_empty() {
            return Ok(None);
        }
        let progress = serde_json::from_slice(&heard);
        Ok(Some(progress.expect("both ranks are of one version")))
    }

    /// Gives all ranks rank 0's tensors: parameters and buffers, moments, averages. All have the same names and shapes, which is checked first.
    ///
    /// # Errors
    /// Who has others; a lost rank.
    pub(in crate::trainer) fn share_tensors(&self, mut named: Vec<(String, Tensor)>) -> Result<(), TrainError> {
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let shapes: String = named
            .iter()
            .map(|(name, t)| format!("{name} {:?} {:?}\n", t.size(), t.kind()))
            .collect();
        self.agree("tensors", &shapes)?;
        let tensors: Vec<Tensor> = named.iter().map(|(_, t)| t.detach()).collect();
        self.broadcast(&tensors)
    }

    /// Where this rank goes on in the data of a checkpoint: where it was, if as many ranks wrote it; else all at the lowest row that one of them stood at.
    pub(in crate::trainer) fn place_in(&self, progress: &Progress) -> Cursor {
        let (rank, world) = (self.rank(), self.world());
        if progress.cursors.len() == world {
            return progress.cursors[rank];
        }
        lowest(progress)
    }

    /// All ranks' places in the data and the images that each counted, in their order.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn places(&self, cursor: Cursor, images: u64) -> Result<Vec<(Cursor, u64)>, TrainError> {
        let text = serde_json::to_vec(&(cursor, images)).expect("a cursor is JSON");
        let all = self.gather(&text)?;
        let read = |text: &Vec<u8>| serde_json::from_slice(text).expect("both ranks are of one version");
        Ok(all.iter().map(read).collect())
    }
}

/// The lowest row of a checkpoint's ranks, from which another number of ranks goes on; samples that some rank took beyond it come again.
pub(in crate::trainer) fn lowest(progress: &Progress) -> Cursor {
    let (cursors, one) = (&progress.cursors, progress.cursor);
    let low = cursors.iter().min_by_key(|c| c.samples()).copied().unwrap_or(one);
    let high = cursors.iter().map(Cursor::samples).max().unwrap_or(low.samples());
    let (ranks, again) = (cursors.len().max(1), high - low.samples());
    tracing::info!(
        ranks_then = ranks,
        images = low.samples(),
        "the checkpoint was written by another number of ranks: data goes on at the lowest row; at most {again} images that some of them have seen come again"
    );
    low
}

/// The keys that all ranks must have alike, one a line.
fn shared_keys(config_toml: &str) -> String {
    let table: toml::Table = config_toml.parse().unwrap_or_default();
    let mut lines = Vec::new();
    flatten("", &toml::Value::Table(table), &mut lines);
    lines.retain(|line| !LOCAL.iter().any(|local| line.starts_with(local)));
    lines.join("\n")
}

fn flatten(path: &str, value: &toml::Value, lines: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, lines);
            }
        }
        value => lines.push(format!("{path} = {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_of_ranks_goes_on_at_the_lowest_row() {
        let at = |before: u64| Cursor {
            before,
            ..Cursor::default()
        };
        let progress = |cursors: &[u64]| -> Progress {
            let cursors: Vec<Cursor> = cursors.iter().map(|n| at(*n)).collect();
            let fields = serde_json::json!({
                "step": 1, "cursor": at(12), "cursors": cursors, "counters": {}, "meter": {}, "word_counts": [],
                "token_entropy": 0.0, "codebook_perplexity": 0.0, "codebook": "",
            });
            serde_json::from_value(fields).unwrap()
        };
        assert_eq!(lowest(&progress(&[])), at(12), "one process wrote it");
        assert_eq!(lowest(&progress(&[16, 12, 20])), at(12));
    }

    #[test]
    fn what_belongs_to_one_process_may_differ() {
        let text = |port: u32, lr: f64| {
            format!("[admin]\nbind = \"127.0.0.1:{port}\"\n[optim]\nlr = {lr}\n[pipeline]\ncache_dir = \"{port}\"\nreaders = 2\n")
        };
        assert_eq!(shared_keys(&text(1, 0.5)), "optim.lr = 0.5\npipeline.readers = 2");
        assert_eq!(shared_keys(&text(1, 0.5)), shared_keys(&text(2, 0.5)));
        assert_ne!(shared_keys(&text(1, 0.5)), shared_keys(&text(1, 0.25)));
    }
}
