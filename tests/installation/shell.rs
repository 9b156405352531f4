//! Completions, manual pages and recipes: made by the program itself, so that they cannot lag behind it; here they are used.

use std::process::Command;

use super::{SOURCE, SPLITMASK, done, names, said};

fn splitmask(arguments: &[&str]) -> String {
    done(Command::new(SPLITMASK).args(arguments).current_dir(SOURCE))
}

/// The verbs in the list that a verb's `--help` prints; none if it has no verbs of its own.
fn verbs(of: &[&str]) -> Vec<String> {
    let help = splitmask(&[of, &["--help"]].concat());
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    list.lines()
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|verb| !verb.is_empty() && *verb != "help")
        .map(str::to_owned)
        .collect()
}

/// What bash would offer behind these words.
fn bash_offers(words: &[&str]) -> Vec<String> {
    let last = words.len() - 1;
    let script = format!(
        "source <('{SPLITMASK}' completions bash); COMP_WORDS=({}); COMP_CWORD={last}; _splitmask splitmask '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.iter().map(|w| format!("'{w}' ")).collect::<String>(),
        words[last],
        words[last.saturating_sub(1)],
    );
    done(Command::new("bash").args(["-c", &script]))
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes_every_verb_and_its_options() {
    let verbs = verbs(&[]);
    assert!(verbs.len() > 10 && verbs.contains(&"train".to_owned()), "{verbs:?}");
    let offered = bash_offers(&["splitmask", ""]);
    for verb in &verbs {
        assert!(offered.contains(verb), "{verb} is not among {offered:?}");
        let options = bash_offers(&["splitmask", verb, "--"]);
        assert!(options.contains(&"--help".to_owned()), "{verb}: {options:?}");
    }
    assert!(bash_offers(&["splitmask", "train", "--conf"]).contains(&"--config".to_owned()));
    assert!(bash_offers(&["splitmask", "eval", ""]).contains(&"knn".to_owned()));
}

#[test]
fn zsh_and_fish_know_every_verb_too() {
    let (zsh, fish) = (splitmask(&["completions", "zsh"]), splitmask(&["completions", "fish"]));
    assert!(zsh.starts_with("#compdef splitmask\n"), "{}", zsh.lines().next().unwrap_or(""));
    for verb in verbs(&[]) {
        assert!(zsh.contains(&format!("\n'{verb}:")), "zsh: {verb}");
        assert!(fish.contains(&format!("-a \"{verb}\"")), "fish: {verb}");
    }
    // Each reads its own script without complaint, where it is installed.
    for (shell, script) in [("zsh", zsh), ("fish", fish)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("script"), script).unwrap();
        match Command::new(shell).arg("-n").arg(dir.path().join("script")).output() {
            Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", said(&output)),
            Err(e) => eprintln!("{shell} is not here, its script was not run: {e}"),
        }
    }
    assert_eq!(
        Command::new(SPLITMASK)
            .args(["completions", "tcsh"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(64)
    );
}

#[test]
fn every_verb_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    splitmask(&["man", folder.to_str().unwrap()]);
    let mut wanted = vec!["splitmask.1".to_owned()];
    for verb in verbs(&[]) {
        wanted.extend(verbs(&[&verb]).iter().map(|inner| format!("splitmask-{verb}-{inner}.1")));
        wanted.push(format!("splitmask-{verb}.1"));
    }
    wanted.sort();
    // clap's own `help` has pages of its own.
    let found: Vec<String> = names(&folder).into_iter().filter(|n| !n.contains("-help")).collect();
    assert_eq!(found, wanted);
    for page in found {
        let text = std::fs::read_to_string(folder.join(&page)).unwrap();
        assert!(text.contains(".TH splitmask") && text.contains(".SH SYNOPSIS"), "{page}:\n{text}");
    }
    let train = std::fs::read_to_string(folder.join("splitmask-train.1")).unwrap();
    assert!(train.contains("\\-\\-config") && train.contains("SIGHUP"), "{train}");

    std::fs::write(dir.path().join("file"), "").unwrap();
    let refused = Command::new(SPLITMASK)
        .args(["man", dir.path().join("file/man1").to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(74), "{}", said(&refused));
}

#[test]
fn recipes_are_listed_and_found_by_name() {
    let list = splitmask(&["configs"]);
    for file in names(&std::path::Path::new(SOURCE).join("configs"))
        .iter()
        .filter_map(|n| n.strip_suffix(".toml"))
    {
        let line = list.lines().find(|l| l.split_whitespace().next() == Some(file));
        assert!(
            line.is_some_and(|l| l.split_whitespace().count() > 3),
            "{file} has no line with a title in\n{list}"
        );
    }
    assert!(list.contains("ablation/beit"), "{list}");
    let path = splitmask(&["configs", "small-data"]);
    assert!(std::fs::read_to_string(path.trim()).unwrap().contains("[run]"), "{path}");

    let refused = Command::new(SPLITMASK)
        .args(["configs", "smal-data"])
        .current_dir(SOURCE)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(64));
    assert!(said(&refused).contains("did you mean small-data"), "{}", said(&refused));
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = Command::new(SPLITMASK)
        .arg("configs")
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(64));
    assert!(said(&refused).contains("docs/install.md"), "{}", said(&refused));
}
