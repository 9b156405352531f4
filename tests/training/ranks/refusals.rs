//! Ranks whose configs are alike and whose files are not.

use std::fs;
use std::path::PathBuf;

use super::company::{Company, folders};
use crate::ground::{Ground, splitmask};

/// All ranks end with 64 and these words, and no checkpoint is left.
#[track_caller]
fn refused(ground: &Ground, run: &str, folders: &[PathBuf], told: &[&str]) {
    let mut company = Company::in_folders(ground, run, folders, &["ranks.join_timeout_s=60"]);
    for rank in 0..folders.len() {
        let (code, log) = company.end_of(rank);
        assert_eq!(code, Some(64), "rank {rank}: {log}");
        for part in told {
            assert!(log.contains(part), "rank {rank}: {part} in {log}");
        }
    }
    assert!(!ground.path(run).join("checkpoints").exists());
}

/// Codebooks and shards of the same names are compared by what is in them.
#[test]
fn files_of_the_same_names_that_hold_something_else_are_refused() {
    let ground = Ground::new();
    let folders = folders(&ground, 2);
    let words = folders[1].join("words.safetensors");
    fs::remove_file(&words).unwrap();
    ground.make_words(&words, "1");
    refused(&ground, "words", &folders, &["rank 1 on host", "has codebook ", ", rank 0 has "]);

    fs::copy(folders[0].join("words.safetensors"), &words).unwrap();
    let data = folders[1].join("data");
    fs::remove_dir_all(&data).unwrap();
    let mut pack = splitmask();
    pack.arg("pack").arg(ground.path("images")).arg(&data);
    let packed = pack.args(["--val-share", "0.2", "--shard-size", "150KiB"]).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    refused(
        &ground,
        "shards",
        &folders,
        &["rank 1 on host", "has the list of shards ", ", rank 0 has "],
    );
}

/// A rank without its config comes to say so, be it the one that all meet at.
#[test]
fn a_config_that_one_rank_does_not_find_ends_all_with_its_words() {
    let ground = Ground::new();
    let folders = folders(&ground, 2);
    for rank in [1, 0] {
        let config = folders[rank].join("config.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::remove_file(&config).unwrap();
        let run = format!("without-{rank}");
        refused(&ground, &run, &folders, &["cannot start: config.toml", "cannot be read"]);
        let other = fs::read_to_string(ground.path(&format!("{run}-{}.log", 1 - rank))).unwrap();
        assert!(other.contains(&format!("rank {rank} on host")), "{other}");
        assert!(
            !other.contains("this rank cannot start"),
            "it tells nobody what all have heard: {other}"
        );
        fs::write(&config, text).unwrap();
    }
}
