//! docs/reload.md, docs/metrics.md, docs/exit-codes.md and docs/commands.md: made from the program, and held to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::{Command, Stdio};

use ::prometheus::proto::{MetricFamily, MetricType};
use splitmask::config::keys::keys;
use splitmask::config::reload_page::page;
use splitmask::exit::ExitCode;

use crate::exporter::inventories;
use crate::files;

const MADE_BY: &str =
    "<!-- Generated from the program: `SPLITMASK_UPDATE_DOCS=1 cargo test --workspace --test dashboards reference` rewrites this file. -->";

/// Compares a page with what it should be, or writes it.
fn hold(page: &str, want: &str) {
    if std::env::var_os("SPLITMASK_UPDATE_DOCS").is_some() {
        std::fs::write(files::path(page), want).unwrap();
        return;
    }
    assert_eq!(files::text(page), want, "{page}: run with SPLITMASK_UPDATE_DOCS=1");
}

/// Labels of a family with the values that they have from the start.
fn labels(family: &MetricFamily) -> String {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for metric in family.get_metric() {
        for label in metric.get_label() {
            values.entry(label.name()).or_default().insert(label.value());
        }
    }
    let listed = values.into_iter().map(|(name, values)| match name {
        // Those of this machine, and of what objectives declare (docs/monitoring.md lists them).
        "version" | "revision" | "libtorch" | "device" | "number" | "rule" | "term" | "layer" => format!("`{name}`"),
        _ => format!("`{name}`: {}", values.into_iter().collect::<Vec<_>>().join(", ")),
    });
    listed.collect::<Vec<_>>().join("; ")
}

#[test]
fn the_reference_has_every_key() {
    let page = page();
    for key in keys() {
        assert!(page.contains(&format!("| `{}` | {} | ", key.path, key.class())), "{}", key.path);
    }
    hold("docs/reload.md", &page);
}

#[test]
fn the_reference_has_every_metric() {
    let (registry, ..) = inventories();
    let mut page = format!(
        "# Metrics\n\n{MADE_BY}\n\nAll series of `/metrics`, each at 0 from the start. Units are in the names. What to do with them: [monitoring.md](monitoring.md). \
         Values of `number`, `term` and `rule` are what the objective declares ([its numbers](monitoring.md#numbers-of-the-objective)). Of several ranks each \
         serves its own, with a label `rank`.\n"
    );
    let mut subsystem = String::new();
    let mut rows = 0;
    for family in registry.gather() {
        let words: Vec<&str> = family.name().split('_').collect();
        let own = if words[0] == "process" { "process" } else { words[1] };
        if own != subsystem {
            subsystem = own.to_owned();
            let _ = write!(
                page,
                "\n## {subsystem}\n\n| metric | type | labels | what it is |\n| --- | --- | --- | --- |\n"
            );
        }
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            other => panic!("{}: {other:?}", family.name()),
        };
        let _ = writeln!(
            page,
            "| `{}` | {kind} | {} | {} |",
            family.name(),
            labels(&family),
            family.help().replace('|', "\\|")
        );
        rows += 1;
    }
    assert!(rows > 80, "{rows}");
    hold("docs/metrics.md", &page);
}

#[test]
fn the_reference_has_every_exit_code() {
    let mut page = format!("# Exit codes\n\n{MADE_BY}\n\n| code | it says | do |\n| --- | --- | --- |\n");
    for code in ExitCode::ALL {
        let (meaning, remedy) = code.meaning();
        let _ = writeln!(page, "| {} | {meaning} | {remedy} |", code as u8);
    }
    page +=
        "\nThe numbers are those of BSD's `sysexits.h` as far as there are any. The systemd unit in deploy/ starts a run again by them.\n";
    hold("docs/exit-codes.md", &page);
}

/// What a verb's `--help` prints, whatever terminal this runs at.
fn help(verbs: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_splitmask"))
        .args(verbs)
        .arg("--help")
        .current_dir(files::path(""))
        .env("COLUMNS", "110")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{verbs:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The verbs that a help lists.
fn verbs(help: &str) -> Vec<String> {
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    let names = list
        .lines()
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|verb| !verb.is_empty() && *verb != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_reference_has_every_command() {
    let whole = help(&[]);
    let mut page = format!(
        "# Commands\n\n{MADE_BY}\n\nWhat `--help` prints. Exit codes are [one list](exit-codes.md) for all of them.\n\n```text\n{whole}```\n"
    );
    let top = verbs(&whole);
    assert!(top.len() > 10, "{top:?}");
    for verb in &top {
        let own = help(&[verb]);
        let _ = write!(page, "\n## splitmask {verb}\n\n```text\n{own}```\n");
        for inner in verbs(&own) {
            let _ = write!(page, "\n### splitmask {verb} {inner}\n\n```text\n{}```\n", help(&[verb, &inner]));
        }
    }
    hold("docs/commands.md", &page);
}
