//! A config as a tree of TOML values, and that tree flattened to dotted keys.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use toml::{Table, Value};

use super::Config;
use crate::objective::{Kind, OBJECTIVES, Plan};

/// Dotted key → value; arrays are leaves.
pub type Flat = BTreeMap<String, Value>;

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

/// The default config with some settings of an objective.
#[must_use]
pub fn with_objective(plan: Box<dyn Plan>) -> Config {
    Config {
        objective: plan.into(),
        ..Config::default()
    }
}

/// The keys of an objective's table whose value decides which others exist, such as `objective.mask.kind`, with the values they may have.
#[must_use]
pub fn choosers(kind: &Kind) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for plan in (kind.variants)() {
        for (key, value) in flatten(&plan.table()) {
            if let (true, Value::String(value)) = (key.rsplit('.').next() == Some("kind"), value) {
                let known = values.entry(format!("objective.{key}")).or_default();
                if !known.contains(&value) {
                    known.push(value);
                }
            }
        }
    }
    values
}

/// The values of an objective's choosers among the keys of a config, as far as they are there.
#[must_use]
pub fn chosen(kind: &Kind, flat: &Flat) -> BTreeMap<String, String> {
    let value = |key: &String| Some((key.clone(), flat.get(key)?.as_str()?.to_owned()));
    choosers(kind).keys().filter_map(value).collect()
}

/// The variant of an objective that has the chosen values; the first one where none has.
#[must_use]
pub fn variant(kind: &Kind, chosen: &BTreeMap<String, String>) -> Box<dyn Plan> {
    let mut variants = (kind.variants)();
    let fits = |plan: &dyn Plan| {
        let flat = flatten(&plan.table());
        let has = |key: &String, value: &String| {
            let own = flat.get(key.trim_start_matches("objective."));
            own.and_then(Value::as_str) == Some(value.as_str())
        };
        chosen.iter().all(|(key, value)| has(key, value))
    };
    let place = variants.iter().position(|plan| fits(plan.as_ref())).unwrap_or(0);
    variants.swap_remove(place)
}

/// The default config of every variant of every objective, flattened.
#[must_use]
pub fn every_default() -> &'static [(&'static Kind, Flat)] {
    static ALL: OnceLock<Vec<(&'static Kind, Flat)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let of_kind = |kind: &'static Kind| {
            let variants = (kind.variants)().into_iter();
            variants.map(move |plan| (kind, flatten(&of(&with_objective(plan)))))
        };
        OBJECTIVES.iter().copied().flat_map(of_kind).collect()
    })
}

/// The keys that exist under some variant of an objective, with a default: that of the first variant which has the key.
#[must_use]
pub fn keys_of(kind: &str) -> Flat {
    let mut all = Flat::new();
    for (_, flat) in every_default().iter().filter(|(k, _)| k.name == kind) {
        for (key, value) in flat {
            all.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    all
}
