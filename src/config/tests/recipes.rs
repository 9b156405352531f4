//! The recipes under configs/.

use super::*;

#[test]
fn every_recipe_loads() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let files = |folder: &std::path::Path| -> Vec<_> { std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect() };
    let mut recipes: Vec<_> = files(&folder)
        .into_iter()
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect();
    recipes.sort();
    assert!(recipes.len() >= 12, "{recipes:?}");
    for file in recipes {
        let source = Source {
            file: file.clone(),
            ..Source::default()
        };
        let loaded = source.load().unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let config = loaded.config;
        assert!(!config.data.train.is_empty(), "{}", file.display());
        let needs_words = config.request().words.is_some();
        assert!(!needs_words || !config.codebook.path.is_empty(), "{}", file.display());
    }
}

#[test]
fn backbone_of_the_papers_size_has_the_papers_parameters() {
    // DeiT-S is 22.05 M with a 1000-way head of 385,000 (arXiv 2012.12877 table 1): 21.67 M without.
    let parameters = explain::backbone_parameters(&load(GOOD).unwrap());
    assert_eq!(parameters, 21_665_664);
}
