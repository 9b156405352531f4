//! The one table of every key: how far a change of it reaches, and what it is. `docs/reload.md` is generated from it.

use std::sync::OnceLock;

use crate::objective::OBJECTIVES;
pub use crate::setting::Class;

/// One key, gathered from the struct that owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Dotted path.
    pub path: String,
    /// Reach of a change.
    pub class: Class,
    /// What it is, with its unit.
    pub doc: String,
    /// Of a key in `[objective]`: the kind that it belongs to. Another kind may have a key of the same path.
    pub objective: Option<&'static str>,
}

fn key(class: Class, path: &str, doc: &str) -> Key {
    Key {
        path: path.to_owned(),
        class,
        doc: doc.to_owned(),
        objective: None,
    }
}

use Class::{Frozen, Live, Rebuild, Restart};

/// All keys, grouped by table.
#[must_use]
pub fn keys() -> &'static [Key] {
    static ALL: OnceLock<Vec<Key>> = OnceLock::new();
    ALL.get_or_init(gather)
}

fn gather() -> Vec<Key> {
    let mut all = before_the_objective();
    let kinds: Vec<String> = OBJECTIVES.iter().map(|k| format!("`{}`", k.name)).collect();
    all.push(key(Frozen, "objective.kind", &format!("what is learnt: {}", kinds.join(", "))));
    for kind in OBJECTIVES {
        all.extend(kind.keys.iter().map(|own| Key {
            objective: Some(kind.name),
            ..key(own.class, &format!("objective.{}", own.name), own.doc)
        }));
    }
    all.extend(after_the_objective());
    all
}

fn before_the_objective() -> Vec<Key> {
    vec![
        key(Frozen, "run.name", "name of the run, in status and journal"),
        key(Frozen, "run.dir", "folder of the run; empty = runs/NAME"),
        key(Frozen, "run.seed", "seed of everything random"),
        key(
            Live,
            "run.init_from",
            "checkpoint whose weights a new run starts from; a run that has begun does not read it again",
        ),
        key(
            Live,
            "run.init_partial",
            "whether parts of the encoder that run.init_from does not hold may start at random; they are listed. Read with run.init_from",
        ),
        key(
            Rebuild,
            "data.train",
            "shards to train on: folder, bucket prefix, glob or range {000000..000146}",
        ),
        key(
            Rebuild,
            "data.sources",
            "several places to mix instead of `data.train`: [[data.sources]] with name, url, weight; positions are kept by name",
        ),
        key(
            Live,
            "data.val",
            "shards for evaluation, labelled unless eval.watch = `loss`; empty = none",
        ),
        key(
            Rebuild,
            "data.endpoint",
            "object store endpoint instead of the provider's; empty = the provider's",
        ),
        key(
            Rebuild,
            "data.shuffle_window",
            "samples shuffled among each other; a change holds from the next window on",
        ),
        key(
            Rebuild,
            "data.fraction",
            "class-balanced share of the samples to train on, 0 to 1; evaluations use all",
        ),
        key(
            Rebuild,
            "data.failure_budget",
            "share of the last 10,000 samples that may fail, 0 to 1",
        ),
        key(
            Rebuild,
            "data.on_budget",
            "when more fail: `pause` (checkpoint, wait for a reload) or `stop`; a run before its first step stops",
        ),
        key(
            Rebuild,
            "data.truncated",
            "JPEGs that end early: `drop` them, or `keep` them with grey for what is missing",
        ),
        key(Rebuild, "data.on_shard_error", "`skip` or `stop` when a shard cannot be read"),
        key(
            Rebuild,
            "data.image",
            "extension of the image where a sample holds several pictures, as `input.png`, or a list in order of preference; empty = its only picture",
        ),
        key(
            Rebuild,
            "data.max_pixels",
            "pixels (width × height) above which an image is refused",
        ),
        key(Rebuild, "data.max_member_bytes", "bytes above which a member of a shard is refused"),
        key(
            Rebuild,
            "pipeline.workers",
            "threads that decode, augment and tokenize; 0 = one per core",
        ),
        key(Rebuild, "pipeline.readers", "shards open at once"),
        key(Rebuild, "pipeline.queue_batches", "batches that wait for the trainer at most"),
        key(Rebuild, "pipeline.queue_mib", "MiB that wait for the trainer at most"),
        key(Rebuild, "pipeline.fetch_mib", "MiB of one ranged request"),
        key(
            Rebuild,
            "pipeline.fetch_ahead",
            "requests in flight per open shard; 0 = as many as needed, 2 to 8 (12 while the store throttles)",
        ),
        key(
            Rebuild,
            "pipeline.read_timeout_s",
            "seconds without a byte after which a request is retried",
        ),
        key(Rebuild, "pipeline.retry_budget_s", "seconds for which one read is retried"),
        key(
            Rebuild,
            "pipeline.hedge_s",
            "seconds after which a slow request is asked for a second time at the earliest; 0 = never",
        ),
        key(
            Rebuild,
            "pipeline.slow_sample_s",
            "seconds of work on one sample above which it is reported",
        ),
        key(
            Rebuild,
            "pipeline.cache_dir",
            "folder for a local copy of remote shards; empty = none",
        ),
        key(Rebuild, "pipeline.cache_gib", "GiB of that folder at most"),
        key(Rebuild, "augment.crop.area", "range of the crop's share of the image area"),
        key(Rebuild, "augment.crop.aspect", "range of the crop's width ÷ height"),
        key(Rebuild, "augment.crop.flip", "probability of a horizontal flip"),
        key(Rebuild, "augment.colour.jitter", "probability of colour jitter"),
        key(
            Rebuild,
            "augment.colour.jitter_strength",
            "strengths of brightness, contrast, saturation, hue",
        ),
        key(Rebuild, "augment.colour.greyscale", "probability of greyscale"),
        key(Rebuild, "augment.colour.blur", "probability of Gaussian blur"),
        key(Rebuild, "augment.colour.blur_sigma", "range of the blur's sigma, pixels"),
        key(Rebuild, "augment.colour.solarise", "probability of solarisation"),
        key(Frozen, "codebook.path", "file of the visual words, made by `splitmask codebook`"),
        key(Frozen, "model.size", "`nano`, `tiny`, `small` or `base`"),
        key(Frozen, "model.image", "side of the square input, pixels"),
        key(Frozen, "model.patch", "side of a square patch, pixels"),
        key(Frozen, "model.width", "embedding width; 0 = the size's"),
        key(Frozen, "model.depth", "blocks; 0 = the size's"),
        key(Frozen, "model.heads", "attention heads; 0 = the size's"),
        key(Frozen, "model.mlp_ratio", "hidden width of the MLP ÷ width"),
        key(Frozen, "model.layer_scale", "initial LayerScale; 0 = none"),
        key(Frozen, "model.relative_bias", "shared relative position bias"),
        key(
            Restart,
            "model.checkpoint_activations",
            "make a block's activations again in backward instead of keeping them: less memory, about a third more time",
        ),
    ]
}

fn after_the_objective() -> Vec<Key> {
    vec![
        key(Live, "optim.lr", "peak learning rate"),
        key(Live, "optim.min_lr", "learning rate at the end of the cosine"),
        key(Live, "optim.warmup_steps", "steps of linear warm-up"),
        key(Live, "optim.total_steps", "steps of the schedule; training ends there"),
        key(
            Live,
            "optim.max_epochs",
            "passes over the data at most: cuts total_steps and warmup_steps to it in proportion; 0 = no bound",
        ),
        key(Live, "optim.weight_decay", "decoupled weight decay of matrices"),
        key(Live, "optim.final_weight_decay", "weight decay at the end of its cosine"),
        key(Live, "optim.beta1", "decay rate of the first moment"),
        key(
            Live,
            "optim.beta2",
            "decay rate of the second moment; takes about 1/(1−beta2) steps to settle",
        ),
        key(Live, "optim.eps", "added to the root of the second moment"),
        key(Live, "optim.clip", "largest global gradient norm; 0 = no clipping"),
        key(
            Restart,
            "optim.layer_decay",
            "learning-rate factor per layer from the top; 1 = none",
        ),
        key(
            Live,
            "ema.decay",
            "share of the averaged weights that a step keeps; 0 = no averaging; turning it on or off is a restart",
        ),
        key(Restart, "train.batch", "images of one optimizer step"),
        key(
            Restart,
            "train.accumulate",
            "parts a batch is processed in; 0 = as few as fit into memory",
        ),
        key(
            Live,
            "train.on_oom",
            "`split` the batch into more parts, or `stop`, when a step does not fit into memory",
        ),
        key(
            Restart,
            "train.peak_tflops",
            "peak of the device, 10¹² operations per second; 0 = by its name, or measured on a CPU",
        ),
        key(Restart, "train.precision", "`bf16` autocast or `f32`"),
        key(Restart, "train.device", "`auto`, `cpu`, `cuda` or `cuda:N`"),
        key(Restart, "train.threads", "libtorch's threads on the CPU; 0 = one per core"),
        key(Restart, "train.mean", "per-channel mean of pixels in 0..1"),
        key(Restart, "train.std", "per-channel standard deviation"),
        key(
            Live,
            "stability.check_every_steps",
            "steps between two looks at losses and gradient norms; between them no step waits for the device",
        ),
        key(
            Live,
            "stability.nonfinite_run",
            "skipped non-finite steps in a row that lead to a rollback",
        ),
        key(
            Live,
            "stability.nonfinite_count",
            "skipped steps among the last stability.window that lead to a rollback",
        ),
        key(Live, "stability.window", "latest steps that are remembered"),
        key(
            Live,
            "stability.rollback_limit",
            "rollbacks within stability.rollback_window of which the last one is a stop with exit code 76; 1 = never roll back",
        ),
        key(Live, "stability.rollback_window", "steps over which rollbacks are counted"),
        key(
            Live,
            "stability.spike_sigma",
            "standard deviations above the window's mean at which a loss is a spike; 0 = none is",
        ),
        key(
            Live,
            "stability.spike_norm",
            "times the window's median that the gradient norm of a spike must exceed",
        ),
        key(Live, "stability.spike_action", "what a loss spike leads to: `warn` or `rollback`"),
        key(Live, "checkpoint.every_steps", "steps between checkpoints"),
        key(Live, "checkpoint.keep", "newest checkpoints that are kept"),
        key(
            Live,
            "checkpoint.keep_every_steps",
            "checkpoints at multiples of this are kept for ever; 0 = none",
        ),
        key(Live, "eval.every_steps", "steps between k-NN evaluations; 0 = only by command"),
        key(Live, "eval.k", "neighbours that vote"),
        key(Live, "eval.temperature", "temperature of the votes' weights"),
        key(Live, "eval.max_reference", "labelled training images searched at most; 0 = all"),
        key(Live, "eval.max_queries", "validation images at most; 0 = all"),
        key(Live, "eval.crop_ratio", "share of the image's side that the centre crop keeps"),
        key(Live, "eval.min_class", "classes with fewer labelled training images are left out"),
        key(
            Live,
            "eval.watch",
            "what an evaluation measures: `knn` (accuracy, needs labels) or `loss` (of the objective on data.val)",
        ),
        key(
            Live,
            "eval.patience",
            "evaluations without a new best before the warning of over-fitting; 0 = never",
        ),
        key(Live, "eval.linear_every_steps", "steps between linear probes; 0 = only by command"),
        key(
            Live,
            "eval.probe_layers",
            "layers that they report: `last`, or `all`, which takes as many fits and as much memory for features",
        ),
        key(
            Live,
            "eval.linear_budget_s",
            "seconds after which a linear probe is given up and training goes on",
        ),
        key(Live, "eval.weights", "which weights are evaluated: `raw` or `ema`"),
        key(Live, "picture.every_steps", "steps between pictures; 0 = only at the end"),
        key(Live, "picture.rows", "images in the inpainting picture"),
        key(
            Live,
            "log.every_steps",
            "steps between lines of metrics.jsonl and updates of the loss gauges",
        ),
        key(Live, "log.filter", "filter of the log, as RUST_LOG (which wins)"),
        key(
            Live,
            "admin.bind",
            "address of the admin server, moved without a pause; empty = none",
        ),
        key(Live, "admin.lifecycle", "whether POST endpoints act"),
        key(Live, "admin.token_file", "file with the bearer token of POSTs; empty = none"),
        key(
            Live,
            "admin.hosts",
            "host names, besides IP addresses and localhost, by which page, status and POSTs without a token may be asked for",
        ),
        key(Live, "admin.grace_s", "seconds from SIGTERM to the end at most"),
        key(Live, "admin.watch", "whether a change of the file's content reloads it"),
        key(
            Live,
            "admin.watchdog_s",
            "seconds without a step after which the trainer counts as stuck; ten median steps if those are longer",
        ),
        key(
            Live,
            "admin.watchdog_exit",
            "whether a trainer that counts as stuck ends the process, with exit code 77, for whoever starts it again",
        ),
        key(
            Live,
            "debug.inject",
            "faults to inject, for tests only; counted in batches consumed: `nan@120`, `nan@120-130`, `nan@120-`, `spike@50`, `oom@5`, `device-lost@9`, `hang@7`; several with commas",
        ),
    ]
}

/// The entry of a key, under an objective.
#[must_use]
pub fn of(path: &str, objective: &str) -> Option<&'static Key> {
    keys()
        .iter()
        .find(|k| k.path == path && k.objective.is_none_or(|kind| kind == objective))
}

/// Whether a key exists under some objective.
#[must_use]
pub fn exists(path: &str) -> bool {
    keys().iter().any(|k| k.path == path)
}

/// How far a change of one key from `old` to `new` reaches: its class, or farther where the two values say so.
#[must_use]
pub fn reach(path: &str, objective: &str, old: Option<&toml::Value>, new: Option<&toml::Value>) -> Class {
    let off = |value: Option<&toml::Value>| value.and_then(toml::Value::as_float) == Some(0.0);
    match of(path, objective) {
        // Averages come into being, or go.
        Some(_) if path == "ema.decay" && off(old) != off(new) => Restart,
        Some(key) => key.class,
        None => Frozen,
    }
}

/// `docs/reload.md`.
#[must_use]
pub fn page() -> String {
    use std::fmt::Write;
    let mut page = String::from(INTRODUCTION);
    let mut heading = String::new();
    for key in keys() {
        let (table, _) = key.path.split_once('.').expect("every key is in a table");
        let kind = key.objective;
        let own = match kind {
            None => format!("## `[{table}]`"),
            Some(kind) => format!("### `[{table}]` with `kind = \"{kind}\"`"),
        };
        if own != heading {
            let _ = write!(page, "\n{own}\n\n");
            if let Some(kind) = kind.and_then(crate::objective::kind) {
                let _ = write!(page, "{} ({}).\n\n", kind.doc, kind.reference);
            }
            page.push_str("| key | class | default | what it is |\n| --- | --- | --- | --- |\n");
            heading = own;
        }
        let defaults = super::tree::keys_of(kind.unwrap_or(OBJECTIVES[0].name));
        let default = defaults.get(&key.path).map_or_else(String::new, ToString::to_string);
        let _ = writeln!(page, "| `{}` | {} | `{default}` | {} |", key.path, key.class, key.doc);
    }
    page
}

const INTRODUCTION: &str = "# Every key, and what happens when it changes during a run

<!-- Generated from src/config/classes.rs: `SPLITMASK_UPDATE_DOCS=1 cargo test -p splitmask reload_page` rewrites this file. -->

A config is read in layers, later ones win: defaults, the file, environment variables (`SPLITMASK_OPTIM__LR=1e-3` sets `optim.lr`),
`--set optim.lr=1e-3`. Paths in it are relative to the directory the command was started in. It holds no credentials: those come from the
environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`) or from files, and an address with a password or a query string is refused.

A running daemon reads the file again on SIGHUP, when the content of the file changes, and on `POST /-/reload`. One reload is one transaction:
read, validate, compare, act on the farthest-reaching class among the changed keys. Whatever fails leaves the old config in force.

| class | what happens |
| --- | --- |
| live | taken over at the next step boundary |
| rebuild | the pipeline is rebuilt from the last consumed batch; model and optimizer are not touched; on failure the old one goes on |
| restart | a checkpoint is written and the trainer rebuilt from it in the same process; on failure it is rebuilt with the old config |
| frozen | refused, the key named; a new run can start from the weights with `run.init_from` |

The same classes hold when a stopped run is started again with another config: frozen differences from the newest checkpoint are refused,
the others are printed and taken.
";

#[cfg(test)]
mod tests;
