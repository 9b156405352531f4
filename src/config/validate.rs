//! Ranges of single keys and rules across tables. Finds everything wrong at once.

use std::collections::BTreeMap;
use std::fmt::Display;

use splitmask_pipeline::bucket::secret::hidden;
use splitmask_pipeline::error::PipelineError;

use super::problem::shown;
use super::{Config, Place, Problem, tree};
use crate::eval::config::Weights;
use crate::setting::{Findings as Owned, Fitting, Violation};

struct Findings<'a> {
    places: &'a BTreeMap<String, Place>,
    problems: Vec<Problem>,
}

impl Findings<'_> {
    fn add(&mut self, key: &str, value: impl Display, message: impl Into<String>, hint: Option<&str>) {
        let place = self.places.get(key).cloned().unwrap_or(Place::Default);
        self.problems.push(Problem {
            place,
            key: key.into(),
            value: value.to_string(),
            message: message.into(),
            hint: hint.map(Into::into),
        });
    }

    fn need(&mut self, ok: bool, key: &str, value: impl Display, allowed: &str) {
        if !ok {
            self.add(key, value, format!("expected {allowed}"), None);
        }
    }

    fn section(&mut self, result: Result<(), (&'static str, String, String)>) {
        if let Err((key, value, allowed)) = result {
            self.add(key, value, format!("expected {allowed}"), None);
        }
    }

    fn owned(&mut self, found: Vec<Violation>) {
        for v in found {
            self.add(&v.key, v.value, format!("expected {}", v.allowed), None);
        }
    }

    fn pipeline(&mut self, result: Result<(), PipelineError>) {
        match result {
            Ok(()) => {}
            Err(PipelineError::BadSetting { key, value, detail }) => self.add(&key, value, format!("expected {detail}"), None),
            Err(other) => self.add("data", "", other.to_string(), None),
        }
    }
}

/// Defaults that do not fit what was set make room for it; `places` then says so.
pub fn fit(config: &mut Config, places: &mut BTreeMap<String, Place>) {
    let is_set = |key: &str| places.contains_key(key);
    let mut fitting = Fitting::new(&is_set);
    config.optim.fit(&mut fitting);
    if config.model.validate().is_ok() {
        let mut objective = config.objective.clone();
        objective.fit(&config.scope(), &mut fitting);
        config.objective = objective;
    }
    for fitted in fitting.fitted() {
        tracing::info!(
            "{} = {}: the default {} is not possible here, {}",
            fitted.key,
            fitted.to,
            fitted.from,
            fitted.why
        );
        let place = Place::Fitted {
            from: fitted.from,
            why: fitted.why,
        };
        places.insert(fitted.key, place);
    }
}

/// Everything wrong with a config whose types are right.
#[must_use]
pub fn across(config: &Config, places: &BTreeMap<String, Place>) -> Vec<Problem> {
    let mut f = Findings {
        places,
        problems: Vec::new(),
    };
    run(config, &mut f);
    credentials(config, &mut f);
    endpoint(config, &mut f);
    f.pipeline(config.data.validate());
    f.pipeline(config.pipeline.validate());
    augment(config, &mut f);
    f.section(config.model.validate());
    f.section(config.optim.validate());
    if config.model.validate().is_ok() {
        objective(config, &mut f);
    }
    train(config, &mut f);
    f.section(config.ema.validate());
    f.section(config.stability.validate());
    f.section(config.debug.validate());
    intervals(config, &mut f);
    admin(config, &mut f);
    f.problems
}

fn run(config: &Config, f: &mut Findings<'_>) {
    let name = &config.run.name;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    f.need(
        !name.is_empty() && name.len() <= 64 && name.chars().all(plain) && !name.starts_with('.'),
        "run.name",
        shown(&name.as_str().into()),
        "1 to 64 letters, digits, '-', '_' or '.', not beginning with '.'",
    );
    f.need(
        i64::try_from(config.run.seed).is_ok(),
        "run.seed",
        config.run.seed,
        "at most 9223372036854775807",
    );
    if config.data.train.is_empty() && config.data.sources.is_empty() {
        f.add(
            "data.train",
            "",
            "is required: where the training shards are",
            Some("a folder, a bucket prefix s3://…, a glob or a range {000000..000146}"),
        );
    }
}

/// All strings in a value, also those of tables in lists.
fn texts(value: &toml::Value) -> Vec<&str> {
    match value {
        toml::Value::String(text) => vec![text],
        toml::Value::Array(items) => items.iter().flat_map(texts).collect(),
        toml::Value::Table(table) => table.values().flat_map(texts).collect(),
        _ => vec![],
    }
}

/// Credentials would reach logs, status and checkpoints.
fn credentials(config: &Config, f: &mut Findings<'_>) {
    for (key, value) in tree::flatten(&tree::of(config)) {
        if texts(&value).into_iter().any(|text| hidden(text) != text) {
            let hint = "put credentials into the environment (AWS_*, GOOGLE_*, AZURE_*), not into a config";
            f.add(
                &key,
                shown(&value),
                "an address with a user, password or query string is refused",
                Some(hint),
            );
        }
    }
}

fn endpoint(config: &Config, f: &mut Findings<'_>) {
    let endpoint = &config.data.endpoint;
    let scheme = endpoint.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !endpoint.is_empty() && !matches!(scheme.as_deref(), Some("http" | "https")) {
        // What stands here instead may be `user:password@host`.
        f.add(
            "data.endpoint",
            "",
            "expected an address",
            Some("for example \"https://minio.example:9000\""),
        );
    }
}

fn augment(config: &Config, f: &mut Findings<'_>) {
    let mut found = Owned::default();
    config.augment.crop.check("augment.crop", &mut found);
    config.augment.colour.check("augment.colour", &mut found);
    f.owned(found.found());
}

fn objective(config: &Config, f: &mut Findings<'_>) {
    f.owned(config.objective.check(&config.scope()));
    f.need(
        !config.objective.whole_batch() || config.train.accumulate <= 1,
        "train.accumulate",
        config.train.accumulate,
        &format!(
            "1: objective.kind = \"{}\" needs each batch in one piece",
            config.objective.kind().name
        ),
    );
    if config.codebook.path.is_empty() && config.request().words.is_some() {
        f.add(
            "codebook.path",
            "",
            format!(
                "is required: the file of the visual words that objective.kind = \"{}\" predicts",
                config.objective.kind().name
            ),
            Some("make one with `splitmask codebook`"),
        );
    }
}

fn train(config: &Config, f: &mut Findings<'_>) {
    let t = &config.train;
    f.need((1..=65_536).contains(&t.batch), "train.batch", t.batch, "1 to 65536 images");
    if t.accumulate > 0 && !t.batch.is_multiple_of(t.accumulate) {
        f.add(
            "train.accumulate",
            t.accumulate,
            format!("expected 0 (as few as fit into memory) or a divisor of train.batch = {}", t.batch),
            None,
        );
    }
    let device = t.device.as_str();
    let index = device.strip_prefix("cuda:").is_some_and(|n| n.parse::<u8>().is_ok());
    if !(matches!(device, "auto" | "cpu" | "cuda") || index) {
        let hint = super::problem::nearest(device, ["auto", "cpu", "cuda"]).map(|n| format!("did you mean \"{n}\"?"));
        f.add(
            "train.device",
            shown(&device.into()),
            "expected \"auto\", \"cpu\", \"cuda\" or \"cuda:N\"",
            hint.as_deref(),
        );
    }
    f.need(
        t.peak_tflops >= 0.0 && t.peak_tflops.is_finite(),
        "train.peak_tflops",
        t.peak_tflops,
        "0 (unset) or above",
    );
    f.need(t.threads <= 1024, "train.threads", t.threads, "0 (one per core) to 1024");
    f.need(
        t.mean.iter().all(|m| (0.0..=1.0).contains(m)),
        "train.mean",
        format!("{:?}", t.mean),
        "three values of 0 to 1",
    );
    f.need(
        t.std.iter().all(|s| *s > 0.0 && *s <= 1.0),
        "train.std",
        format!("{:?}", t.std),
        "three values above 0, at most 1",
    );
}

fn intervals(config: &Config, f: &mut Findings<'_>) {
    f.need(
        config.checkpoint.every_steps >= 1,
        "checkpoint.every_steps",
        config.checkpoint.every_steps,
        "at least 1 step",
    );
    f.need(config.checkpoint.keep >= 1, "checkpoint.keep", config.checkpoint.keep, "at least 1");
    let e = &config.eval;
    for (key, steps) in [
        ("eval.every_steps", e.every_steps),
        ("eval.linear_every_steps", e.linear_every_steps),
    ] {
        if steps > 0 && config.data.val.is_empty() {
            let hint = format!("set data.val, or {key} = 0");
            f.add(key, steps, "needs data.val, the shards that are evaluated on", Some(&hint));
        }
    }
    f.need(e.patience <= 1000, "eval.patience", e.patience, "0 (never) to 1000 evaluations");
    f.need(
        e.linear_budget_s > 0.0 && e.linear_budget_s <= 86_400.0,
        "eval.linear_budget_s",
        e.linear_budget_s,
        "above 0, at most 86400 seconds",
    );
    if e.weights == Weights::Ema && config.ema.decay == 0.0 {
        f.add(
            "eval.weights",
            "\"ema\"",
            "needs averaged weights",
            Some("set ema.decay, for example to 0.999, or eval.weights = \"raw\""),
        );
    }
    f.need(e.k >= 1, "eval.k", e.k, "at least 1 neighbour");
    f.need(e.temperature > 0.0, "eval.temperature", e.temperature, "above 0");
    f.need(
        e.crop_ratio > 0.0 && e.crop_ratio <= 1.0,
        "eval.crop_ratio",
        e.crop_ratio,
        "above 0, at most 1",
    );
    f.need(
        (1..=64).contains(&config.picture.rows),
        "picture.rows",
        config.picture.rows,
        "1 to 64 images",
    );
    f.need(
        config.log.every_steps >= 1,
        "log.every_steps",
        config.log.every_steps,
        "at least 1 step",
    );
    if let Err(e) = tracing_subscriber::EnvFilter::try_new(&config.log.filter) {
        f.add(
            "log.filter",
            shown(&config.log.filter.as_str().into()),
            e.to_string(),
            Some("for example \"info,splitmask_pipeline=debug\""),
        );
    }
}

fn admin(config: &Config, f: &mut Findings<'_>) {
    let a = &config.admin;
    f.need(
        (0.0..=86_400.0).contains(&a.grace_s),
        "admin.grace_s",
        a.grace_s,
        "0 to 86400 seconds",
    );
    f.need(
        (1.0..=86_400.0).contains(&a.watchdog_s),
        "admin.watchdog_s",
        a.watchdog_s,
        "1 to 86400 seconds",
    );
    if a.bind.is_empty() {
        return;
    }
    let Ok(address) = a.bind.parse::<std::net::SocketAddr>() else {
        f.add(
            "admin.bind",
            shown(&a.bind.as_str().into()),
            "expected an IP address and a port",
            Some("for example \"127.0.0.1:9464\", \"0.0.0.0:9464\" or \"[::1]:9464\""),
        );
        return;
    };
    if a.lifecycle && !address.ip().is_loopback() && a.token_file.is_empty() {
        let hint = "set admin.token_file to a file with at least 32 bytes of secret, for example from `openssl rand -hex 32`, or bind to 127.0.0.1";
        f.add(
            "admin.bind",
            shown(&a.bind.as_str().into()),
            "beyond loopback, admin.lifecycle needs admin.token_file",
            Some(hint),
        );
    }
}
