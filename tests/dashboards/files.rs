//! What lies under `dashboards/`, read for checking.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One query of a panel.
pub(crate) struct Query {
    /// As in the file, variables included.
    pub(crate) expr: String,
    /// Asked at one moment rather than over the time range.
    pub(crate) instant: bool,
}

/// One panel that shows data.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) json: Value,
    pub(crate) queries: Vec<Query>,
}

/// One alert of `alerts.yml`.
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expr: String,
}

/// A file or folder of this repository.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Its text.
pub(crate) fn text(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
}

/// The Grafana dashboard.
pub(crate) fn dashboard() -> Value {
    serde_json::from_str(&text("dashboards/grafana/splitmask.json")).expect("dashboards/grafana/splitmask.json is JSON")
}

/// An array inside a JSON value, by pointer.
pub(crate) fn list<'a>(json: &'a Value, pointer: &str) -> &'a [Value] {
    json.pointer(pointer)
        .and_then(Value::as_array)
        .unwrap_or_else(|| panic!("no list at {pointer} of {}", json["title"]))
}

/// A string inside a JSON value, by pointer; empty if there is none.
pub(crate) fn string<'a>(json: &'a Value, pointer: &str) -> &'a str {
    json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// All panels but the row headings.
pub(crate) fn panels(dashboard: &Value) -> Vec<Panel> {
    let with_data = list(dashboard, "/panels").iter().filter(|p| p["type"] != "row");
    with_data
        .map(|json| Panel {
            title: string(json, "/title").into(),
            queries: list(json, "/targets")
                .iter()
                .map(|t| Query {
                    expr: string(t, "/expr").into(),
                    instant: t["instant"] == true,
                })
                .collect(),
            json: json.clone(),
        })
        .collect()
}

/// Expressions of the annotations that Prometheus draws.
pub(crate) fn annotations(dashboard: &Value) -> Vec<Query> {
    let ours = list(dashboard, "/annotations/list").iter().filter(|a| a.get("expr").is_some());
    ours.map(|a| Query {
        expr: string(a, "/expr").into(),
        instant: false,
    })
    .collect()
}

/// All alerts: name and expression, a folded block put on one line.
pub(crate) fn alerts() -> Vec<Alert> {
    let text = text("dashboards/prometheus/alerts.yml");
    let mut alerts = Vec::new();
    for part in text.split("- alert: ").skip(1) {
        let name = part.lines().next().unwrap_or_default().trim();
        let after = part.split_once(" expr: ").unwrap_or_else(|| panic!("alert {name} has no expr")).1;
        let indent = "          ";
        let expr = match after.strip_prefix(">-\n") {
            Some(block) => block
                .lines()
                .take_while(|l| l.starts_with(indent))
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" "),
            None => after.lines().next().unwrap_or_default().to_owned(),
        };
        alerts.push(Alert { name: name.into(), expr });
    }
    alerts
}

/// A dashboard expression as Grafana sends it when everything is chosen.
pub(crate) fn substituted(expr: &str, job: &str, rate_interval: &str) -> String {
    let done = expr
        .replace("$__rate_interval", rate_interval)
        .replace("$job", job)
        .replace("$run", ".*")
        .replace("$instance", ".*");
    assert!(!done.contains('$'), "unknown variable in {expr}");
    done
}
