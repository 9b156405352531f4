//! The house rules, checked: floors of both crates, no circles among files, a pipeline without libtorch, no drawer called `utils`.
//!
//! Lives in the pipeline crate so that it runs without libtorch; it reads sources as text.

mod docs;
mod file_graph;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the pipeline from the ground up; a module may use those of lower floors, and its own floor only where `same` says so.
const PIPELINE: &[&[&str]] = &[
    &[
        "request",
        "types",
        "error",
        "seed",
        "cursor",
        "name",
        "setting",
        "file",
        "printable",
        "coco",
    ],
    &["metrics"],
    &["decode", "tokenize", "mask", "stage"],
    &["augment", "bucket"],
    &["sample"],
    &["config"],
    &["shard"],
    &["batch"],
    &["run", "pack"],
];

/// Modules of `splitmask` from the ground up.
const SPLITMASK: &[&[&str]] = &[
    &["exit", "signals", "panic_report", "setting", "exact", "held_lock", "detection"],
    &["telemetry"],
    &["tensor"],
    &["loss", "optim", "model"],
    &["head", "dvae"],
    &["objective", "words"],
    &["checkpoint", "export", "eval", "picture"],
    &["mirror"],
    &["trainer"],
    &["config"],
    &["daemon"],
    &["cli"],
];

/// Floors whose modules may know each other.
const MIXED: &[&str] = &[
    "request",
    "types",
    "error",
    "seed",
    "cursor",
    "exit",
    "signals",
    "name",
    "setting",
    "checkpoint",
    "export",
    "eval",
    "picture",
];

/// Each folder below these is one thing with the file of its name: an objective's settings build its network, which knows them.
const OBJECTIVES: [&str; 2] = ["objective/pretrain/", "objective/transfer/"];

const BANNED: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc"];

/// (module, text) of every Rust file below `root`; the module is the first path component.
fn sources(root: &Path) -> Vec<(String, PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(root).unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
                let module = first.trim_end_matches(".rs").to_owned();
                found.push((module, path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Top modules named as `crate::NAME` outside comments, also inside `use crate::{a::…, b}`.
fn uses(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .flat_map(|l| [l, "\n"])
        .collect();
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let name = |s: &str| {
            s.trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut start = 0;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if (c == ',' && depth == 1) || depth == 0 {
                    names.push(name(&group[start..i]));
                    start = i + 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            names.push(name(rest));
        }
    }
    names
}

fn violations(floors: &[&[&str]], files: &[(String, PathBuf, String)]) -> Vec<String> {
    let floor: BTreeMap<&str, usize> = floors
        .iter()
        .enumerate()
        .flat_map(|(i, names)| names.iter().map(move |n| (*n, i)))
        .collect();
    let mut found = Vec::new();
    for (module, path, text) in files {
        if path
            .components()
            .any(|c| BANNED.contains(&c.as_os_str().to_string_lossy().trim_end_matches(".rs")))
        {
            found.push(format!("{}: a module named for nothing", path.display()));
        }
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let Some(own) = floor.get(module.as_str()) else {
            found.push(format!("{}: module `{module}` stands on no floor", path.display()));
            continue;
        };
        for used in uses(text) {
            let Some(other) = floor.get(used.as_str()) else { continue };
            let same = own == other && (used == *module || (MIXED.contains(&module.as_str()) && MIXED.contains(&used.as_str())));
            if other > own || (other == own && !same) {
                found.push(format!(
                    "{}: `{module}` (floor {own}) uses `{used}` (floor {other})",
                    path.display()
                ));
            }
        }
    }
    found
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn pipeline_modules_import_from_below() {
    let found = violations(PIPELINE, &sources(&here().join("src")));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn splitmask_modules_import_from_below() {
    let found = violations(SPLITMASK, &sources(&here().join("../src")));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_file_of_the_pipeline_needs_one_that_needs_it() {
    let root = here().join("src");
    let found = file_graph::circles(&root, &sources(&root));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_file_of_splitmask_needs_one_that_needs_it() {
    let root = here().join("../src");
    let mut found = file_graph::circles(&root, &sources(&root));
    let inside = |file: &String| OBJECTIVES.iter().find_map(|folder| Some(file.strip_prefix(folder)?.to_owned()));
    let objective = |file: &String| Some(inside(file)?.split('/').next()?.to_owned());
    found.retain(|circle| objective(&circle[0]).is_none() || circle.iter().any(|file| objective(file) != objective(&circle[0])));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_planted_circle_is_found_and_a_parent_that_gathers_its_children_is_none() {
    let root = Path::new("src");
    let file = |path: &str, text: &str| (String::new(), root.join(path), text.to_owned());
    let gathering = [
        file(
            "decode/mod.rs",
            "mod jpeg;\npub use jpeg::{Jpeg, Part as Piece};\npub struct Limits;",
        ),
        file("decode/jpeg.rs", "use super::Limits;\n"),
        file("crop.rs", "use crate::decode::Piece;\nuse std::fmt;"),
    ];
    assert_eq!(file_graph::circles(root, &gathering), Vec::<Vec<String>>::new());
    let planted = [
        gathering.to_vec(),
        vec![
            // By a passed-on name, by `super`, and by a path in the code.
            file("decode/jpeg.rs", "use super::{Limits, table::{self}};\nuse crate::crop::Crop;"),
            file(
                "decode/table.rs",
                "// crate::crop is only talked about\nfn f() { super::bits::read(); }",
            ),
            file(
                "decode/bits.rs",
                "use super::table::{Table,\n    Line};\n#[cfg(test)]\nmod tests { use super::super::jpeg; }",
            ),
        ],
    ];
    let found = file_graph::circles(root, &planted.concat());
    assert_eq!(found, [vec!["crop", "decode/jpeg"], vec!["decode/bits", "decode/table"]]);
}

#[test]
fn the_pipeline_knows_no_tensor() {
    let manifest = fs::read_to_string(here().join("Cargo.toml")).unwrap();
    for banned in ["tch", "torch-sys", "torch-ext"] {
        assert!(
            !manifest.lines().any(|l| l.trim_start().starts_with(banned)),
            "pipeline/Cargo.toml depends on {banned}"
        );
    }
}

#[test]
fn a_planted_violation_is_found() {
    let file = |module: &str, path: &str, text: &str| (module.to_owned(), PathBuf::from(path), text.to_owned());
    let planted = [
        file("decode", "src/decode/mod.rs", "use crate::bucket::open;"),
        file(
            "decode",
            "src/decode/jpeg.rs",
            "use crate::{error::SampleError, run::{Dataset, Order}};",
        ),
        file(
            "mask",
            "src/mask.rs",
            "// crate::run is only talked about\nuse crate::decode::Decoder;",
        ),
        file("shard", "src/shard/utils.rs", ""),
        file("attic", "src/attic.rs", ""),
        file("run", "src/run.rs", "use crate::{shard, batch};"),
    ];
    let found = violations(PIPELINE, &planted);
    assert_eq!(found.len(), 5, "{found:#?}");
    assert!(found[0].contains("uses `bucket`"));
    assert!(found[1].contains("uses `run`"));
    assert!(found[2].contains("uses `decode`"));
    assert!(found[3].contains("named for nothing"));
    assert!(found[4].contains("stands on no floor"));
}

#[test]
fn the_tests_that_the_guide_to_faults_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let guide = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let rows: Vec<&str> = guide
        .lines()
        .filter(|l| l.starts_with("| ") && l[2..].starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    assert!(rows.len() >= 40, "rows went missing");
    for (n, row) in rows.iter().enumerate() {
        assert!(row.starts_with(&format!("| {} |", n + 1)), "{row}");
        assert!(row.contains(".rs::"), "no test injects it: {row}");
    }
    for (file, test) in guide.split('`').filter_map(|word| word.split_once(".rs::")) {
        let text = fs::read_to_string(root.join(file).with_extension("rs")).unwrap_or_else(|e| panic!("{file}.rs: {e}"));
        assert!(text.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
    }
}
