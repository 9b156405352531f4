//! docs/monitoring.md against what the program declares.

use std::collections::BTreeSet;

use splitmask::config::keys::keys;
use splitmask::objective::{OBJECTIVES, Role};

use crate::files;

/// The two tables of docs/monitoring.md about what objectives declare, by the comment above each.
fn declared() -> [(&'static str, String); 2] {
    let mut numbers = String::from("| number | objective | better | what it is |\n| --- | --- | --- | --- |\n");
    let mut rules = String::from("| rule | objective | it holds while | look for |\n| --- | --- | --- | --- |\n");
    for kind in OBJECTIVES {
        for n in kind.numbers {
            let term = if n.role == Role::Term { " (term)" } else { "" };
            let better = format!("{:?}", n.better).to_lowercase();
            numbers += &format!(
                "| `{}`{term} | {} | {better} | {} |\n",
                n.name,
                kind.name,
                n.help.trim_end_matches('.')
            );
        }
        for r in kind.collapse {
            rules += &format!("| `{}` | {} | {} | {} |\n", r.name, kind.name, r.help, r.remedy);
        }
    }
    [("numbers", numbers), ("rules", rules)]
}

#[test]
fn the_guide_shows_what_objectives_declare() {
    let have = files::text("docs/monitoring.md");
    let mut want = have.clone();
    for (name, table) in declared() {
        let head = format!("<!-- {name} -->\n");
        let start = want.find(&head).expect("the comment above the table") + head.len();
        let end = start + want[start..].find("<!-- end -->").expect("the comment below the table");
        want.replace_range(start..end, &table);
    }
    if std::env::var_os("SPLITMASK_UPDATE_DOCS").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md");
        std::fs::write(file, &want).unwrap();
        return;
    }
    assert_eq!(have, want, "run with SPLITMASK_UPDATE_DOCS=1");
}

#[test]
fn the_keys_that_the_guide_and_the_alerts_tell_to_turn_exist() {
    let tables: BTreeSet<_> = keys()
        .iter()
        .filter_map(|k| k.path.split_once('.'))
        .map(|(table, _)| table)
        .collect();
    let mut told = 0;
    for file in [
        "docs/monitoring.md",
        "dashboards/prometheus/alerts.yml",
        "dashboards/grafana/panels.py",
    ] {
        let text = files::text(file);
        for word in text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_')
            .map(|w| w.trim_end_matches('.'))
        {
            let Some((table, key)) = word.split_once('.') else { continue };
            if tables.contains(table) && !key.is_empty() {
                assert!(
                    keys().iter().any(|k| k.path == word),
                    "{file} names the key {word}, which does not exist"
                );
                told += 1;
            }
        }
    }
    assert!(told > 15, "only {told} keys were found");
}
