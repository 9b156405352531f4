//! A config as a tree of TOML values, and that tree flattened to dotted keys.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Config;
use crate::objective::config::{BeitConfig, ObjectiveConfig, SplitMaskConfig};
use splitmask_pipeline::types::MaskSpec;

/// Dotted key → value; arrays are leaves.
pub type Flat = BTreeMap<String, Value>;

/// Values of `objective.kind`.
pub const OBJECTIVES: [&str; 2] = ["splitmask", "beit"];
/// Values of `objective.mask.kind`.
pub const MASKS: [&str; 3] = ["blockwise-split", "uniform-split", "blockwise-mask"];

/// A config as a table; numbers that are `f32` in their struct appear in their shortest form.
#[must_use]
pub fn of(config: &Config) -> Table {
    let mut table = Table::try_from(config).expect("validated configs hold no value that TOML lacks");
    for (_, value) in &mut table {
        shorten(value);
    }
    table
}

/// `0.08f32` becomes 0.07999999821186066 as `f64`; answer what was meant.
fn shorten(value: &mut Value) {
    match value {
        Value::Float(f) => {
            let single = *f as f32;
            if f64::from(single) == *f
                && let Ok(short) = single.to_string().parse()
            {
                *f = short;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Table(table) => {
            for (_, item) in table {
                shorten(item);
            }
        }
        _ => {}
    }
}

/// Flattens a table. An empty table is a leaf, so that an unknown empty section is seen.
#[must_use]
pub fn flatten(table: &Table) -> Flat {
    fn walk(prefix: &str, table: &Table, flat: &mut Flat) {
        for (key, value) in table {
            let path = if prefix.is_empty() {
                key.clone()
            } else {
                format!("{prefix}.{key}")
            };
            match value {
                Value::Table(inner) if !inner.is_empty() => walk(&path, inner, flat),
                _ => {
                    flat.insert(path, value.clone());
                }
            }
        }
    }
    let mut flat = Flat::new();
    walk("", table, &mut flat);
    flat
}

/// Puts a value at a dotted key, making the tables on the way. Answers false where a value stands in the way.
pub fn put(table: &mut Table, path: &str, value: Value) -> bool {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
            true
        }
        Some((head, rest)) => match table.entry(head.to_owned()).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => put(inner, rest, value),
            _ => false,
        },
    }
}

/// The default config of an objective and a mask: its keys are the ones that exist. Unknown names give `None`.
#[must_use]
pub fn defaults(objective: &str, mask: Option<&str>) -> Option<Config> {
    let mut objective = match objective {
        "splitmask" => ObjectiveConfig::Splitmask(SplitMaskConfig::default()),
        "beit" => ObjectiveConfig::Beit(BeitConfig::default()),
        _ => return None,
    };
    if let Some(mask) = mask {
        let spec = match mask {
            "blockwise-split" => MaskSpec::BlockwiseSplit {
                min_block: 16,
                max_block: 75,
            },
            "uniform-split" => MaskSpec::UniformSplit { keep: 0.5 },
            "blockwise-mask" => MaskSpec::BlockwiseMask {
                count: 75,
                min_block: 16,
                max_block: 75,
            },
            _ => return None,
        };
        match &mut objective {
            ObjectiveConfig::Splitmask(c) => c.mask = spec,
            ObjectiveConfig::Beit(c) => c.mask = spec,
        }
    }
    Some(Config {
        objective,
        ..Config::default()
    })
}

/// Every key that exists under some objective and mask, with a default.
#[must_use]
pub fn every_key() -> Flat {
    let mut all = Flat::new();
    for objective in OBJECTIVES {
        for mask in MASKS {
            let config = defaults(objective, Some(mask)).expect("listed names");
            all.extend(flatten(&of(&config)));
        }
    }
    all
}
