//! A changed config that one rank cannot follow.

use std::fs;

use serde_json::Value;

use super::EACH;
use super::company::{Company, folders};
use crate::ground::Ground;

/// Each rank builds what a changed config needs of its own files, and says whether it could. Where one could not, or finds other shards, none takes the
/// config over, whoever asks is told which rank and why, and nothing of it is left in the losses.
#[test]
fn a_config_that_one_rank_cannot_follow_is_taken_over_by_none() {
    let ground = Ground::new();
    let folders = folders(&ground, 2);
    let sets = ["optim.total_steps=40", EACH, "admin.lifecycle=true", "admin.watch=false"];
    Company::in_folders(&ground, "clean", &folders, &sets).finish();

    let config = folders[0].join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    // The votes are cast while all wait for a batch, so that the run does not end meanwhile.
    let starving = format!("{text}[debug]\ninject = \"starve@20#1\"\n");
    for folder in &folders {
        fs::write(folder.join("config.toml"), &starving).unwrap();
    }
    let mut company = Company::in_folders(&ground, "run", &folders, &sets);
    company.until_it_waits(19);
    let ask = |company: &mut Company, text: &str| {
        fs::write(&config, text.replace("queue_batches = 2", "queue_batches = 3")).unwrap();
        let (code, body) = company.rank(0).ask("POST", "/-/reload").unwrap();
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };

    let manifests = [0, 1].map(|rank: usize| folders[rank].join("data/train/manifest.json"));
    let whole = fs::read_to_string(&manifests[0]).unwrap();
    let mut other: Value = serde_json::from_str(&whole).unwrap();
    let samples = other["shards"][0]["samples"].as_u64().unwrap();
    other["shards"][0]["samples"] = (samples + 1).into();
    let other = other.to_string();
    let refusals = [
        (1, "{", "rank 1 on host", "bad manifest"),
        (1, other.as_str(), "rank 1 on host", "finds another list of shards than rank 0"),
        (0, "{", "rank 0 on host", "bad manifest"),
    ];
    for (rank, manifest, who, why) in refusals {
        fs::write(&manifests[rank], manifest).unwrap();
        let (code, report) = ask(&mut company, &starving);
        let error = report["error"].as_str().unwrap_or_default();
        assert!(code == 500 && error.contains(who) && error.contains(why), "{code} {report}");
        assert!(!error.contains(&format!("rank {} on host", 1 - rank)), "{report}");
        fs::write(&manifests[rank], &whole).unwrap();
    }
    let (code, report) = ask(&mut company, &text);
    assert!(code == 200 && report["applied_at_step"] == 19, "{code} {report}");
    company.finish();
    for rank in 0..2 {
        let log = fs::read_to_string(ground.path(&format!("run-{rank}.log"))).unwrap();
        let times = |what: &str| log.matches(what).count();
        let told = [
            "no rank takes over the changed config",
            "all ranks have taken over the changed config",
        ];
        assert_eq!(told.map(times), [refusals.len(), 1], "rank {rank}: {log}");
    }
    assert_eq!(ground.trace("clean"), ground.trace("run"), "same images, same losses");
}
