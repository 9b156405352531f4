//! Rules between tables, and what the tables' owners say of them. Finds everything wrong at once.

use std::collections::BTreeMap;
use std::fmt::Display;

use splitmask_pipeline::bucket::location::{is_same_place, is_within};
use splitmask_pipeline::bucket::secret::{hidden, hidden_in_text};

use super::problem::shown;
use super::{Config, Place, Problem, tree};
use crate::eval::config::Watched;
use crate::eval::pool::Pool;
use crate::objective::{ClassesOf, Start};
use crate::optim::Weights;
use crate::setting::{self, Fitting};

struct Findings<'a> {
    places: &'a BTreeMap<String, Place>,
    problems: Vec<Problem>,
}

impl Findings<'_> {
    fn add(&mut self, key: &str, value: impl Display, message: impl Into<String>, hint: Option<&str>) {
        let place = Place::of(self.places, key);
        self.problems.push(Problem {
            place,
            key: key.into(),
            value: hidden_in_text(&value.to_string()),
            message: message.into(),
            hint: hint.map(Into::into),
        });
    }

    /// Takes over what the owner of a table found.
    fn owned(&mut self, check: impl FnOnce(&mut setting::Findings)) {
        let mut found = setting::Findings::default();
        check(&mut found);
        for v in found.found() {
            self.add(&v.key, v.value, format!("expected {}", v.allowed), v.hint.as_deref());
        }
    }
}

/// Defaults that do not fit what was set make room for it; `places` then says so.
pub(super) fn fit(config: &mut Config, places: &mut BTreeMap<String, Place>) {
    let is_set = |key: &str| places.contains_key(key);
    let mut fitting = Fitting::new(&is_set);
    config.optim.fit(&mut fitting);
    if config.model.is_valid() {
        let mut objective = config.objective.clone();
        objective.fit(&config.scope(), &mut fitting);
        config.objective = objective;
    }
    let by = Pool::that_learns(config.objective.learns_by()[0]);
    let why = format!("objective.kind = \"{}\" learns by the {}", config.objective.kind().name, by.words());
    fitting.fit("eval.pool", &mut config.eval.pool, by, why);
    for fitted in fitting.fitted() {
        tracing::info!(
            "{} = {}: the default {} gives way: {}",
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
pub(super) fn problems(config: &Config, places: &BTreeMap<String, Place>) -> Vec<Problem> {
    let mut f = Findings {
        places,
        problems: Vec::new(),
    };
    f.owned(|found| config.run.check(found));
    data(config, &mut f);
    credentials(config, &mut f);
    f.owned(|found| {
        config.data.check(found);
        config.pipeline.check(found);
        config.augment.check(found);
        config.model.check(found);
        config.optim.check(found);
    });
    if config.model.is_valid() {
        objective(config, &mut f);
    }
    f.owned(|found| {
        config.train.check(found);
        config.ema.check(found);
        config.ranks.check(found);
        config.stability.check(found);
        config.debug.check(found);
        config.checkpoint.check(found);
        config.eval.check(found);
        config.picture.check(found);
        config.log.check(found);
        config.admin.check(found);
    });
    evaluations(config, &mut f);
    mirror(config, &mut f);
    f.problems
}

/// One mirror, and not in the folder that it is to outlive.
fn mirror(config: &Config, f: &mut Findings<'_>) {
    let address = config.checkpoint.mirror.as_str();
    if address.is_empty() {
        return;
    }
    if config.run.address().is_some_and(|dir| !is_same_place(dir, address)) {
        f.add(
            "checkpoint.mirror",
            format!("{address:?}"),
            "run.dir is another address, and a run has one mirror",
            Some("make run.dir a folder, or leave checkpoint.mirror empty"),
        );
    }
    let mut refuse = |place: &str, message: String| {
        if !place.is_empty() && is_within(address, place) {
            f.add(
                "checkpoint.mirror",
                format!("{address:?}"),
                message,
                Some("name a place that is nothing else's"),
            );
        }
    };
    let run_dir = config.run_dir();
    refuse(
        &run_dir.to_string_lossy(),
        format!("is in the run folder {}, and would be lost with it", run_dir.display()),
    );
    let data = [("data.train", &config.data.train), ("data.val", &config.data.val)];
    let sources = config.data.sources.iter().map(|source| ("data.sources", &source.url));
    for (key, place) in data.into_iter().chain(sources) {
        refuse(
            place,
            format!("is where {key} has its shards: its checkpoints would lie among them"),
        );
    }
}

fn data(config: &Config, f: &mut Findings<'_>) {
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

fn objective(config: &Config, f: &mut Findings<'_>) {
    let kind = config.objective.kind().name;
    f.owned(|found| {
        found.extend(config.objective.check(&config.scope()));
        found.need(
            !config.objective.whole_batch() || config.train.accumulate <= 1,
            "train.accumulate",
            config.train.accumulate,
            format!("1: objective.kind = \"{kind}\" needs each batch in one piece"),
        );
    });
    if let (Start::Pretrained(what), true) = (config.objective.start(), config.run.init_from.is_empty()) {
        f.add(
            "run.init_from",
            "\"\"",
            format!("is required beside {what}: drawn weights that do not learn are of no use"),
            Some("name the run folder or checkpoint to start from"),
        );
    }
    if config.codebook.path.is_empty() && config.request().words.is_some() {
        f.add(
            "codebook.path",
            "",
            format!("is required: the file of the visual words that objective.kind = \"{kind}\" predicts"),
            Some("make one with `splitmask codebook`"),
        );
    }
}

fn evaluations(config: &Config, f: &mut Findings<'_>) {
    for (key, steps) in [
        ("eval.every_steps", config.eval.every_steps),
        ("eval.linear_every_steps", config.eval.linear_every_steps),
    ] {
        if steps > 0 && config.data.val.is_empty() {
            let hint = format!("set data.val, or {key} = 0");
            f.add(key, steps, "needs data.val, the shards that are evaluated on", Some(&hint));
        }
    }
    if let Some(wrong) = config.eval.wrong_stride(config.model.image) {
        f.add("eval.slide_stride", config.eval.slide_stride, format!("expected {wrong}"), None);
    }
    let learns = |of: ClassesOf| config.objective.classes().is_some() && config.objective.classes_of() == of;
    for (watched, kind, of, what) in [
        (Watched::Classify, "classify", ClassesOf::Images, "classes"),
        (Watched::Segment, "segment", ClassesOf::Pixels, "classes of pixels"),
        (Watched::Detect, "detect", ClassesOf::Objects, "classes of objects"),
    ] {
        if config.eval.watch == watched && !learns(of) {
            let own = match config.objective.classes_of() {
                _ if config.objective.classes().is_none() => "",
                ClassesOf::Images => "\"classify\", ",
                ClassesOf::Pixels => "\"segment\", ",
                ClassesOf::Objects => "\"detect\", ",
            };
            let loss = if config.objective.incomparable().is_some() {
                ""
            } else {
                " or \"loss\""
            };
            let hint = format!("set eval.watch = {own}\"knn\"{loss}, or objective.kind = \"{kind}\" with run.init_from");
            f.add(
                "eval.watch",
                format!("\"{kind}\""),
                format!("objective.kind = \"{}\" learns no {what}", config.objective.kind().name),
                Some(&hint),
            );
        }
    }
    if config.eval.weights == Weights::Ema && config.ema.decay == 0.0 {
        f.add(
            "eval.weights",
            "\"ema\"",
            "needs averaged weights",
            Some("set ema.decay, for example to 0.999, or eval.weights = \"raw\""),
        );
    }
}
