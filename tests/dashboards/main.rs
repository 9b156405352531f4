//! The dashboard, the scrape config and the alerts against the metrics that the daemon really has, and against a real Prometheus.

mod daemon;
mod exporter;
mod files;
#[path = "../../pipeline/tests/stream_support/free_port.rs"]
mod free_port;
#[path = "../training/ground.rs"]
#[expect(dead_code, reason = "the daemon's own tests use the rest of it")]
mod ground;
mod guide;
mod prometheus;
mod promql;
mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use exporter::{Exporter, inventories};
use files::{Panel, Query, list, string};
use prometheus::{Prometheus, promtool};
use promql::selectors;
use splitmask::telemetry::metrics::{TrainMetrics, render, series_names};

/// Series that Prometheus makes itself for each target.
const OF_PROMETHEUS: [&str; 2] = ["up", "scrape_duration_seconds"];
/// What the dashboard's `$job` stands for; also in prometheus.yml and in the alerts.
const JOB: &str = "splitmask";

/// Every series that an expression may name.
fn known() -> BTreeSet<String> {
    let (registry, ..) = inventories();
    let mut names = series_names(&registry);
    names.extend(OF_PROMETHEUS.map(str::to_owned));
    names
}

/// All expressions with where they stand.
fn expressions() -> Vec<(String, String)> {
    let dashboard = files::dashboard();
    let panels = files::panels(&dashboard)
        .into_iter()
        .flat_map(|p| p.queries.into_iter().map(move |q| (format!("panel {:?}", p.title), q.expr)));
    let annotations = files::annotations(&dashboard)
        .into_iter()
        .map(|q| ("an annotation".to_owned(), q.expr));
    let alerts = files::alerts().into_iter().map(|a| (format!("alert {}", a.name), a.expr));
    panels.chain(annotations).chain(alerts).collect()
}

/// Names in the expressions that no inventory has.
fn unknown<'a>(expressions: &'a [(String, String)], known: &BTreeSet<String>) -> Vec<(&'a str, String)> {
    let used = expressions
        .iter()
        .flat_map(|(place, expr)| selectors(expr).into_iter().map(move |s| (place.as_str(), s.metric)));
    used.filter(|(_, metric)| !known.contains(metric)).collect()
}

#[test]
fn every_metric_in_a_panel_or_an_alert_exists() {
    let mut expressions = expressions();
    assert!(expressions.len() > 60, "only {} expressions were found", expressions.len());
    for (place, expr) in &expressions {
        assert!(!selectors(expr).is_empty(), "{place} reads no metric: {expr}");
    }
    let known = known();
    assert_eq!(unknown(&expressions, &known), []);

    expressions[0].1 = "rate(splitmask_train_step_total[5m])".into();
    assert_eq!(unknown(&expressions, &known).len(), 1, "a misspelt name must be found");
}

#[test]
fn every_metric_is_drawn_or_watched_somewhere() {
    let used: BTreeSet<String> = expressions()
        .iter()
        .flat_map(|(_, expr)| selectors(expr))
        .map(|s| family(&s.metric).to_owned())
        .collect();
    let unseen: Vec<_> = known()
        .iter()
        .map(|name| family(name).to_owned())
        .filter(|name| !used.contains(name))
        .collect();
    assert!(unseen.is_empty(), "in no panel and no alert: {unseen:?}");
}

/// The histogram that a series belongs to, or the series itself.
fn family(series: &str) -> &str {
    let of_histogram = ["_bucket", "_sum", "_count"]
        .into_iter()
        .find_map(|suffix| series.strip_suffix(suffix));
    of_histogram.filter(|name| name.ends_with("_duration_seconds")).unwrap_or(series)
}

#[test]
fn the_whole_exposition_stays_small_and_passes_promtool() {
    let (registry, ..) = inventories();
    let text = render(&registry).expect("encodes");
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    // Those of every objective and of pack together; a run shows its own.
    assert!(series < 520, "{series} series");
    let trainers = TrainMetrics::names().expect("consistent").len();
    assert!(series_names(&registry).len() > trainers, "the pipeline's inventory is missing");
    let checked = promtool(&["check", "metrics"], Some(&text));
    assert!(
        checked.status.success(),
        "promtool check metrics:\n{}{}",
        utf8(&checked.stdout),
        utf8(&checked.stderr)
    );
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_panel_can_be_understood_and_imported_anywhere() {
    let dashboard = files::dashboard();
    let panels = files::panels(&dashboard);
    let mut titles = BTreeSet::new();
    for Panel { title, json, queries } in &panels {
        assert!(
            !title.is_empty() && titles.insert(title.clone()),
            "title {title:?} is empty or used twice"
        );
        assert!(string(json, "/description").len() > 20, "{title}: no description");
        assert!(!string(json, "/fieldConfig/defaults/unit").is_empty(), "{title}: no unit");
        assert!(!queries.is_empty(), "{title}: no query");
        for place in std::iter::once(json).chain(list(json, "/targets")) {
            assert_eq!(string(place, "/datasource/uid"), "${datasource}", "{title}: a fixed data source");
        }
        for Query { expr, .. } in queries {
            let choosy = selectors(expr)
                .iter()
                .all(|s| s.matchers.starts_with("{job=\"$job\",run=~\"$run\",instance=~\"$instance\""));
            assert!(choosy, "{title}: not by job, run and instance: {expr}");
            // A fixed range hides what lies between two points of a long time range; checkpoints are too rare for anything else.
            let fixed = expr.contains("rate(") && !expr.contains("$__rate_interval") && !expr.contains("splitmask_checkpoint_");
            assert!(!fixed, "{title}: a rate over a fixed range: {expr}");
        }
    }
    let rows: Vec<_> = list(&dashboard, "/panels")
        .iter()
        .filter(|p| p["type"] == "row")
        .map(|p| string(p, "/title"))
        .collect();
    let heads: Vec<_> = rows.iter().map(|title| title.split(':').next().unwrap_or_default()).collect();
    assert_eq!(heads, ["Status", "Learning", "Time", "Ranks", "Pipeline", "Storage", "Machine"]);

    let variables: BTreeMap<_, _> = list(&dashboard, "/templating/list")
        .iter()
        .map(|v| (string(v, "/name"), v))
        .collect();
    assert_eq!(
        variables.keys().copied().collect::<Vec<_>>(),
        ["datasource", "instance", "job", "run"]
    );
    assert_eq!(string(variables["datasource"], "/type"), "datasource");
    assert_eq!(variables["instance"]["multi"], true);
    let ids: BTreeSet<_> = list(&dashboard, "/panels").iter().map(|p| p["id"].as_u64()).collect();
    assert_eq!(ids.len(), list(&dashboard, "/panels").len(), "panel ids are unique");
}

#[test]
fn panels_do_not_overlap() {
    let dashboard = files::dashboard();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard, "/panels") {
        let at = |key: &str| {
            panel["gridPos"][key]
                .as_u64()
                .unwrap_or_else(|| panic!("{}: gridPos.{key}", panel["title"]))
        };
        assert!(at("x") + at("w") <= 24, "{} leaves the grid", panel["title"]);
        for cell in (at("y")..at("y") + at("h")).flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y))) {
            assert!(taken.insert(cell), "{} covers another panel at {cell:?}", panel["title"]);
        }
    }
}

#[test]
fn the_dashboard_is_what_its_generator_makes() {
    let check = Command::new("python3")
        .args(["-B", "dashboards/grafana/generate.py", "--check"])
        .current_dir(files::path(""))
        .output();
    let check = check.expect("python3 is needed: apt-get install python3");
    assert!(check.status.success(), "{}", utf8(&check.stderr));
}

#[test]
fn rules_and_config_are_valid_and_every_alert_fires_when_it_should() {
    for args in [
        ["check", "config", "dashboards/prometheus/prometheus.yml"],
        ["check", "rules", "dashboards/prometheus/alerts.yml"],
        ["test", "rules", "dashboards/prometheus/alerts_test.yml"],
    ] {
        let file = files::path(args[2]);
        let output = promtool(&[args[0], args[1], &file.display().to_string()], None);
        assert!(
            output.status.success(),
            "promtool {args:?}:\n{}{}",
            utf8(&output.stdout),
            utf8(&output.stderr)
        );
    }
}

#[test]
fn every_alert_has_a_case_that_fires_one_that_does_not_and_a_page() {
    let alerts = files::alerts();
    let expected = [
        "TrainerDown",
        "TrainingStalled",
        "TrainerHung",
        "BucketAway",
        "RunPaused",
        "DataStarved",
        "LossNotFinite",
        "GradNormRising",
        "ThroughputDrop",
        "SampleErrorBudget",
        "CheckpointStale",
        "CheckpointFailing",
        "CheckpointMirrorStale",
        "ConfigReloadFailed",
        "CertificateNotTaken",
        "CodebookCollapse",
        "Overfitting",
        "ObjectiveCollapse",
        "FeatureCollapse",
        "StoreThrottled",
        "DiskNearlyFull",
        "RankMissing",
        "RankStraggling",
        "RanksWait",
        "RanksRestarting",
    ];
    assert_eq!(alerts.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), expected);
    let cases = files::text("dashboards/prometheus/alerts_test.yml");
    let guide = files::text("docs/monitoring.md");
    for alert in &alerts {
        let of_it: Vec<_> = cases
            .split("  - name: ")
            .filter(|case| case.contains(&format!("alertname: {}\n", alert.name)))
            .collect();
        assert!(
            of_it.iter().any(|case| case.contains("exp_labels")),
            "{}: no case in which it fires",
            alert.name
        );
        assert!(
            of_it.iter().any(|case| case.contains("exp_alerts: []")),
            "{}: no case in which it does not",
            alert.name
        );
        assert!(
            guide.contains(&format!("### {}\n", alert.name)),
            "docs/monitoring.md does not explain {}",
            alert.name
        );
    }
}

/// What a query must answer.
#[derive(Clone, Copy)]
enum Need {
    /// A number: the target's every series moves.
    Number,
    /// The same of a real run, but quantiles of what did not happen, such as requests to a store, may be 0/0, and one process has no ranks to compare.
    Run,
}

/// Lets a real Prometheus scrape `target` and asks it every query of the dashboard; answers what stayed without data.
fn queries_without_data(target: &str, need: Need) -> Vec<String> {
    let prometheus = Prometheus::scraping(target);
    let dashboard = files::dashboard();
    let panels = files::panels(&dashboard);
    let mut waiting: Vec<(String, String, bool)> = panels
        .iter()
        .flat_map(|p| {
            p.queries
                .iter()
                .map(|q| (p.title.clone(), files::substituted(&q.expr, JOB, "4s"), q.instant))
        })
        .collect();
    assert!(waiting.len() > 50);
    if let Need::Number = need {
        // Events that a healthy run may never have.
        waiting.extend(
            files::annotations(&dashboard)
                .iter()
                .map(|q| ("annotation".into(), files::substituted(&q.expr, JOB, "4s"), q.instant)),
        );
    }
    // The parts of the alerts: a misspelt label would make an alert silent for ever. A label value may be new to a quiet run,
    // but never missing: every one starts at 0.
    for alert in files::alerts() {
        waiting.extend(
            selectors(&alert.expr)
                .into_iter()
                .map(|s| (format!("alert {}", alert.name), s.metric + &s.matchers, true)),
        );
    }
    let begin = Instant::now();
    let mut last = String::new();
    while !waiting.is_empty() && begin.elapsed() < Duration::from_secs(45) {
        waiting.retain(|(place, expr, instant)| {
            let values = prometheus.values(expr, *instant).unwrap_or_else(|e| panic!("{place}: {expr}: {e}"));
            // A process alone is no rank, and has no step of its own beside others'.
            let may_be_none = ["histogram_quantile", "splitmask_ranks_own_step_seconds"];
            let quiet = matches!(need, Need::Run) && may_be_none.iter().any(|part| expr.contains(part));
            !values.iter().any(|v| quiet || v.is_finite())
        });
        std::thread::sleep(Duration::from_millis(500));
        last = prometheus.api("targets", &[("state", "active")]).map_or_else(
            |e| e,
            |data| {
                data.pointer("/activeTargets/0/lastError")
                    .map(ToString::to_string)
                    .unwrap_or_default()
            },
        );
    }
    check_variables_and_rules(&prometheus);
    waiting
        .into_iter()
        .map(|(place, expr, _)| format!("{place}: {expr} (last scrape: {last})"))
        .collect()
}

fn check_variables_and_rules(prometheus: &Prometheus) {
    for label in ["job", "instance", "run"] {
        let values = prometheus
            .api(&format!("label/{label}/values"), &[("match[]", "splitmask_build_info")])
            .expect("an answer");
        assert_eq!(values.as_array().map(Vec::len), Some(1), "label {label}: {values}");
    }
    let rules = prometheus.api("rules", &[]).expect("an answer");
    let rules = list(&rules, "/groups/0/rules");
    assert_eq!(rules.len(), files::alerts().len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{}: {}", rule["name"], rule["lastError"]);
    }
}

#[test]
fn a_real_prometheus_finds_data_for_every_query() {
    let exporter = Exporter::start();
    assert_eq!(queries_without_data(&exporter.address, Need::Number), Vec::<String>::new());
}

/// The same against your daemon: `SPLITMASK_ADMIN=127.0.0.1:9464 cargo test --test dashboards -- --ignored`.
#[test]
#[ignore = "needs a daemon that is running already; its address goes into SPLITMASK_ADMIN"]
fn a_real_prometheus_finds_data_in_the_daemon_of_splitmask_admin() {
    let target = std::env::var("SPLITMASK_ADMIN").expect("SPLITMASK_ADMIN=host:port of a running daemon's admin listener");
    assert_eq!(queries_without_data(&target, Need::Run), Vec::<String>::new());
}
