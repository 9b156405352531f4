//! Which file of a crate uses which, read from its text, and the circles in that.
//!
//! A name that a parent module merely passes on (`pub use child::Name`) is looked up where it is defined, and passing it on is no use of the child.
//! So a parent may gather its children, and children may use what stands in their parent; a circle is where each needs the other to be understood.

use std::collections::BTreeMap;
use std::path::Path;

/// Place of a module below the crate's root: `["decode", "jpeg"]`; empty for `lib.rs`.
type Module = Vec<String>;

/// One file's paths, resolved as far as its own text goes.
struct Seen {
    /// Paths from the crate's root that it uses.
    uses: Vec<Module>,
    /// What it passes on: name → path from the crate's root.
    passes_on: BTreeMap<String, Module>,
}

/// Circles among files; each is told with the use that closes it from one file to the next.
pub(crate) fn circles(root: &Path, files: &[(String, std::path::PathBuf, String)]) -> Vec<Vec<String>> {
    let modules: BTreeMap<Module, &str> = files
        .iter()
        .filter_map(|(_, path, text)| Some((module(path.strip_prefix(root).ok()?)?, text.as_str())))
        .collect();
    let seen: BTreeMap<&Module, Seen> = modules
        .iter()
        .map(|(module, text)| (module, read(module, text, &modules)))
        .collect();
    let names: Vec<&Module> = modules.keys().filter(|module| !module.is_empty()).collect();
    let place: BTreeMap<&Module, usize> = names.iter().enumerate().map(|(n, module)| (*module, n)).collect();
    let direct: Vec<Vec<usize>> = names
        .iter()
        .map(|module| {
            let used = seen[*module].uses.iter().filter_map(|path| home(path, &modules, &seen, 0));
            used.filter(|other| other != *module)
                .filter_map(|other| place.get(&other).copied())
                .collect()
        })
        .collect();
    let reach: Vec<Vec<bool>> = (0..names.len()).map(|from| reachable(from, &direct)).collect();
    let mut told = vec![false; names.len()];
    let mut found = vec![];
    for from in 0..names.len() {
        let circle: Vec<usize> = (0..names.len()).filter(|&to| reach[from][to] && reach[to][from]).collect();
        if circle.is_empty() || told[from] {
            continue;
        }
        circle.iter().for_each(|&n| told[n] = true);
        found.push(circle.iter().map(|&n| names[n].join("/")).collect());
    }
    found
}

/// Places that can be reached in one step or more.
fn reachable(from: usize, direct: &[Vec<usize>]) -> Vec<bool> {
    let mut seen = vec![false; direct.len()];
    let mut next = direct[from].clone();
    while let Some(n) = next.pop() {
        if !std::mem::replace(&mut seen[n], true) {
            next.extend(&direct[n]);
        }
    }
    seen
}

/// The module of a file; none for files of tests.
fn module(path: &Path) -> Option<Module> {
    let mut module: Module = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module
        .iter()
        .any(|part| part == "tests" || part.ends_with("_tests") || part == "fixtures")
    {
        return None;
    }
    if matches!(module.last().map(String::as_str), Some("mod")) || matches!(module.as_slice(), [one] if one == "lib" || one == "main") {
        module.pop();
    }
    Some(module)
}

/// The file in which the thing at the end of a path is defined.
fn home(path: &[String], modules: &BTreeMap<Module, &str>, seen: &BTreeMap<&Module, Seen>, depth: usize) -> Option<Module> {
    let length = (0..=path.len()).rev().find(|n| modules.contains_key(&path[..*n]))?;
    let module = path[..length].to_vec();
    match path.get(length).and_then(|name| seen[&module].passes_on.get(name)) {
        Some(further) if depth < 5 => home(&[further.as_slice(), &path[length + 1..]].concat(), modules, seen, depth + 1),
        _ => Some(module),
    }
}

fn read(module: &Module, text: &str, modules: &BTreeMap<Module, &str>) -> Seen {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut seen = Seen {
        uses: vec![],
        passes_on: BTreeMap::new(),
    };
    let mut lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    while let Some(line) = lines.next() {
        let statement = line
            .split_once("use ")
            .filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        let Some((before, rest)) = statement else {
            // Paths in the code itself; `pub(in crate::…)` says who may use, not what is used.
            let outside = line
                .split_once("pub(in ")
                .map_or(line, |(_, rest)| rest.split_once(')').map_or("", |(_, rest)| rest));
            let words = outside.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let paths = words.filter(|word| word.contains("::"));
            seen.uses.extend(paths.filter_map(|path| from_root(module, path, modules)));
            continue;
        };
        let mut statement = rest.to_owned();
        while !statement.contains(';') {
            let Some(more) = lines.next() else { break };
            statement.push_str(more);
        }
        for path in expanded(statement.split(';').next().unwrap_or_default()) {
            let (path, name) = match path.split_once(" as ") {
                Some((path, name)) => (path.to_owned(), name.to_owned()),
                None => (path.clone(), path.rsplit("::").next().unwrap_or_default().to_owned()),
            };
            let Some(full) = from_root(module, &path, modules) else { continue };
            if before.is_empty() {
                seen.uses.push(full);
            } else {
                seen.passes_on.insert(name, full);
            }
        }
    }
    seen
}

/// `a::{b, c::{d, self}}` → `a::b`, `a::c::d`, `a::c`.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, group)) = tree.split_once('{') else {
        return vec![tree.strip_suffix("::self").unwrap_or(tree).to_owned()];
    };
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut depth, mut start, mut found) = (0, 0, vec![]);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let inside = expanded(&group[start..at]).into_iter().filter(|path| !path.is_empty());
                found.extend(inside.map(|path| match path.as_str() {
                    "self" => before.trim_end_matches("::").to_owned(),
                    path => format!("{before}{path}"),
                }));
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// A path as it stands in a module, from the crate's root; none for what belongs to other crates.
fn from_root(module: &Module, path: &str, modules: &BTreeMap<Module, &str>) -> Option<Module> {
    let mut parts: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
    match parts[0].as_str() {
        "crate" => Some(parts.split_off(1)),
        "self" => Some([module.as_slice(), &parts[1..]].concat()),
        "super" => {
            let up = parts.iter().take_while(|part| *part == "super").count();
            let base = &module[..module.len().checked_sub(up)?];
            Some([base, &parts[up..]].concat())
        }
        first => {
            let child = [module.as_slice(), &[first.to_owned()]].concat();
            modules.contains_key(&child).then(|| [module.as_slice(), &parts].concat())
        }
    }
}
