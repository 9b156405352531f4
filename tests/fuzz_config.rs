//! Hostile configs: refused with a text or understood, never a panic; and what is understood can be written down and read again.
#![expect(clippy::print_stdout, reason = "a measurement that is read with --nocapture")]

#[path = "../pipeline/tests/fuzz/mutate.rs"]
mod mutate;

use splitmask::config::Source;

#[test]
fn hostile_configs() {
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/configs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    seeds.sort();
    let mixed = r#"
[data]
sources = [{ name = "a", url = "s3://b/x", weight = 1.0 }, { name = "c", url = "d", weight = 0.5 }]
[codebook]
path = "w"
"#;
    seeds.push(mixed.into());
    let (mut accepted, source) = (0, Source::default());
    mutate::fuzz("config", &seeds, 4_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        match source.load_text(text) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok((config, _)) => {
                accepted += 1;
                let again = source.load_text(&config.to_toml());
                assert_eq!(again.map(|a| a.0).map_err(|e| e.to_string()), Ok(config));
            }
        }
    });
    println!("config: {accepted} accepted");
    assert!(accepted > 100, "{accepted}");
}
