//! The README and docs/ against themselves: links that lead somewhere, pages that the site has, messages that the program really prints.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The README and the like, and all pages of docs/, by their paths in the repository.
fn pages() -> Vec<PathBuf> {
    let of = |folder: &str| fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = of(".")
        .chain(of("docs"))
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.sort();
    pages
        .iter()
        .map(|p| p.strip_prefix(root().join(".")).or(p.strip_prefix(root())).unwrap().to_owned())
        .collect()
}

/// The lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// What `](…)` names in prose, code between backticks left out.
fn links(text: &str) -> Vec<String> {
    let without_code = |line: &str| line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let of_line = |line: &str| {
        let line = without_code(line);
        let ends = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        ends.map(|(link, _)| link.to_owned()).collect::<Vec<_>>()
    };
    prose(text).flat_map(of_line).collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let slugs = titles.map(|title| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    });
    let numbered = slugs.map(|slug| {
        let before = seen.entry(slug.clone()).or_default();
        *before += 1;
        if *before == 1 { slug } else { format!("{slug}-{}", *before - 1) }
    });
    numbered.collect()
}

/// What is wrong with the links of a page, which lies in `folder`.
fn dead(folder: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for link in links(text) {
        if link.contains("://") {
            continue;
        }
        let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let target = root().join(folder).join(file);
        if !file.is_empty() && !target.exists() {
            wrong.push(format!("{link}: there is no such file"));
            continue;
        }
        let there = || {
            if file.is_empty() {
                anchors(text)
            } else {
                anchors(&self::text(&target))
            }
        };
        if !anchor.is_empty() && !there().contains(anchor) {
            wrong.push(format!("{link}: there is no such heading"));
        }
        // The site holds docs/, and configs/ beside it.
        if folder == Path::new("docs") && file.starts_with("../") && !file.starts_with("../configs/") {
            wrong.push(format!("{link}: leads out of what the site holds"));
        }
    }
    wrong
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for page in pages() {
        let text = text(&root().join(&page));
        followed += links(&text).len();
        let folder = page.parent().unwrap();
        assert_eq!(dead(folder, &text), [""; 0], "{}", page.display());
    }
    assert!(followed > 150, "only {followed} links were found");
}

#[test]
fn a_planted_dead_link_is_found() {
    let page = "# One (two)\n## One (two)\n[a](none.md) [b](data.md#nowhere) [c](#one-two-1) `[d](none)`\n```\n[e](none)\n```\n[f](../src/main.rs)\n";
    let found = dead(Path::new("docs"), page);
    assert_eq!(found.len(), 3, "{found:?}");
    for (found, words) in found.iter().zip(["none.md", "no such heading", "out of what the site holds"]) {
        assert!(found.contains(words), "{found}");
    }
}

#[test]
fn the_site_has_every_page_once() {
    let summary = text(&root().join("docs/SUMMARY.md"));
    let listed = links(&summary);
    let there: BTreeSet<String> = pages()
        .iter()
        .filter(|p| p.starts_with("docs") && !p.ends_with("SUMMARY.md"))
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(listed.len(), there.len(), "a page stands in SUMMARY.md twice");
    assert_eq!(BTreeSet::from_iter(listed), there);
}

/// The sources as one text: what a string goes on with in the next line stands behind it, and escapes are what they stand for.
fn printed() -> String {
    let mut all = String::new();
    for folder in ["src", "pipeline/src", "native/src", "launcher/src"] {
        for (_, _, text) in crate::sources(&root().join(folder)) {
            for line in text.lines() {
                let line = if all.ends_with('\u{1}') { line.trim_start() } else { line };
                all.truncate(all.trim_end_matches('\u{1}').len());
                match line.strip_suffix('\\') {
                    Some(begun) => all.extend([begun, "\u{1}"]),
                    None => all.extend([line, "\n"]),
                }
            }
        }
    }
    all.replace("\\\"", "\"")
}

/// The messages in the first column of the tables: code between backticks, `…` for what differs.
fn messages(guide: &str) -> Vec<&str> {
    let rows = guide
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| you see") && !line.starts_with("| ---"));
    let first = rows.filter_map(|row| row[2..].split(" | ").next());
    first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_messages_in_the_guide_to_trouble_are_the_programs_own() {
    let (guide, printed) = (text(&root().join("docs/troubleshooting.md")), printed());
    let messages = messages(&guide);
    assert!(messages.len() > 50, "{}", messages.len());
    let unknown = |message: &&&str| {
        let parts = message.split('…').map(str::trim).filter(|part| part.len() > 3);
        !parts.into_iter().all(|part| printed.contains(part))
    };
    let unknown: Vec<_> = messages.iter().filter(unknown).collect();
    assert_eq!(unknown, Vec::<&&str>::new(), "nothing in the source says so");
    assert!(!printed.contains("nobody prints this message"));
}
