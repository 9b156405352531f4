//! Reload is one transaction: applied as a whole, or the old config goes on.

use std::fs;
use std::net::SocketAddr;

use crate::fake::{BAD_READERS, PONDERS, SLOW};
use crate::free_port::free_port;
use crate::process::Ground;

#[test]
fn live_change_is_applied_told_counted_and_kept() {
    let ground = Ground::new();
    let daemon = ground.daemon(&["admin.watch=false"]).ready();
    let (_, before) = daemon.json("GET", "/api/v1/status");
    ground.write(&ground.text("[optim]\nlr = 1e-3\n"));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!((code, report["outcome"].as_str()), (200, Some("applied")), "{report}");
    assert!(report["applied_at_step"].as_u64().unwrap() > 0);
    let change = serde_json::json!([{ "path": "optim.lr", "old": "0.0015", "new": "0.001", "class": "live" }]);
    assert_eq!(report["changes"], change);
    let (_, after) = daemon.json("GET", "/api/v1/status");
    assert_eq!(after["config"]["sha256"], report["config_sha256"]);
    assert_ne!(after["config"]["sha256"], before["config"]["sha256"]);
    assert_eq!(
        (before["config"]["generation"].as_u64(), after["config"]["generation"].as_u64()),
        (Some(1), Some(2))
    );
    assert!(ground.read("run/fake.log").contains("Live step="));
    assert!(ground.read("run/fake.log").contains("lr=0.001"));
    assert!(ground.read("run/last-good.toml").contains("lr = 0.001"));
    assert_eq!(daemon.metric("splitmask_config_reloads_total{outcome=\"applied\"}"), 1.0);
    assert_eq!(daemon.metric("splitmask_config_generation"), 2.0);
    let journal = ground.journal();
    assert_eq!(
        journal.iter().map(|e| e["event"].as_str().unwrap()).collect::<Vec<_>>(),
        ["start", "reload"]
    );
    assert_eq!(
        (&journal[1]["outcome"], &journal[1]["trigger"], &journal[1]["changes"]),
        (&"applied".into(), &"http".into(), &change)
    );
    assert!(daemon.log().contains("optim.lr 0.0015 → 0.001 (live)"), "{}", daemon.log());

    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!(
        (code, report["outcome"].as_str(), report["changes"].as_array().unwrap().len()),
        (200, Some("unchanged"), 0)
    );
}

#[test]
fn bad_files_are_refused_with_their_place_and_the_run_goes_on() {
    let ground = Ground::new();
    let mut daemon = ground.daemon(&["admin.watch=false"]).ready();
    daemon.until("the accepted config is kept", |_| !ground.read("run/last-good.toml").is_empty());
    let good = ground.read("run/last-good.toml");
    let line = ground.text("").lines().count();
    // (text, status, outcome, words of the error)
    let table: &[(&str, u16, &str, &[String])] = &[
        (
            "[optim]\nlrr = 1\n",
            422,
            "invalid",
            &[
                format!("c.toml:{}:1", line + 2),
                "optim.lrr".into(),
                "did you mean optim.lr?".into(),
            ],
        ),
        (
            "[optim]\nlr = \"fast\"\n",
            422,
            "invalid",
            &[format!("c.toml:{}:1", line + 2), "expected a number".into()],
        ),
        ("[optim\n", 422, "invalid", &[format!("c.toml:{}:", line + 1), "not TOML".into()]),
        ("[optim]\nlr = 7\n", 422, "invalid", &["optim.lr = 7".into(), "at most 1".into()]),
        (
            "[admin]\ntoken_file = \"nowhere\"\n",
            422,
            "invalid",
            &["admin.token_file = \"nowhere\"".into()],
        ),
        (
            "[model]\ndepth = 3\n",
            409,
            "frozen",
            &[
                format!("c.toml:{}:1: a run cannot change model.depth 0 → 3 (frozen)", line + 2),
                "run.init_from".into(),
            ],
        ),
        (
            "[optim]\nlr = 1e-4\n[model]\npatch = 14\n",
            409,
            "frozen",
            &["model.patch 16 → 14".into()],
        ),
    ];
    for (more, status, outcome, words) in table {
        ground.write(&ground.text(more));
        let (code, report) = daemon.json("POST", "/-/reload");
        assert_eq!(
            (code, report["outcome"].as_str().unwrap()),
            (*status, *outcome),
            "{more:?}: {report}"
        );
        for word in *words {
            assert!(
                report["error"].as_str().unwrap().contains(word.as_str()),
                "{more:?}: {word:?} is not in {report}"
            );
        }
        assert_eq!(daemon.metric("splitmask_config_last_reload_successful"), 0.0);
        assert_eq!(ground.read("run/last-good.toml"), good);
        let step = daemon.step();
        daemon.until("the next steps", |d| d.step() > step + 2);
    }
    assert_eq!(daemon.metric("splitmask_config_reloads_total{outcome=\"invalid\"}"), 5.0);
    assert_eq!(daemon.metric("splitmask_config_reloads_total{outcome=\"frozen\"}"), 2.0);
    assert_eq!(daemon.metric("splitmask_config_generation"), 1.0);
    assert_eq!(ground.read("run/fake.log").lines().count(), 1, "the trainer heard nothing");
    let (_, problem) = daemon.json("GET", "/api/v1/status");
    assert_eq!(problem["config"]["last_reload"]["outcome"], "frozen");
}

#[test]
fn pipeline_is_rebuilt_and_a_failed_rebuild_leaves_the_old_config() {
    let ground = Ground::new();
    let daemon = ground.daemon(&["admin.watch=false"]).ready();
    ground.write(&ground.text("[pipeline]\nworkers = 3\n[optim]\nlr = 1e-3\n"));
    assert_eq!(daemon.json("POST", "/-/reload").0, 200);
    assert!(
        ground.read("run/fake.log").contains("Rebuild step="),
        "{}",
        ground.read("run/fake.log")
    );
    let good = ground.read("run/last-good.toml");
    ground.write(&ground.text(&format!("[pipeline]\nworkers = 3\nreaders = {BAD_READERS}\n")));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!((code, report["outcome"].as_str()), (500, Some("failed")), "{report}");
    assert!(report["error"].as_str().unwrap().contains("no such pipeline"));
    assert_eq!(ground.read("run/last-good.toml"), good);
    assert_eq!(
        daemon.json("GET", "/api/v1/config").1["settings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["path"] == "optim.lr")
            .unwrap()["value"],
        1e-3
    );
}

#[test]
fn trainer_is_rebuilt_in_the_process_and_a_failed_one_is_rolled_back() {
    let ground = Ground::new();
    let mut daemon = ground.daemon(&["admin.watch=false"]).ready();
    daemon.until("some steps", |d| d.step() > 5);
    ground.write(&ground.text("[train]\nbatch = 64\n"));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!((code, report["outcome"].as_str()), (200, Some("applied")), "{report}");
    let begins: Vec<String> = ground
        .read("run/fake.log")
        .lines()
        .filter(|l| l.starts_with("begin"))
        .map(Into::into)
        .collect();
    assert_eq!(begins.len(), 2, "{begins:?}");
    assert!(
        begins[1].contains("batch=64") && !begins[1].contains("step=0 "),
        "from the checkpoint: {begins:?}"
    );

    ground.write(&ground.text("[train]\nbatch = 64\ndevice = \"cuda:9\"\n"));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!((code, report["outcome"].as_str()), (500, Some("failed")), "{report}");
    assert!(report["error"].as_str().unwrap().contains("no device cuda:9"), "{report}");
    assert!(
        ground
            .read("run/fake.log")
            .lines()
            .filter(|l| l.starts_with("begin") && l.contains("batch=64"))
            .count()
            == 2,
        "back with the old config"
    );
    let step = daemon.step();
    daemon.until("the run goes on", |d| d.step() > step + 2);
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
}

#[test]
fn file_watch_and_hangup_reload_and_the_last_content_wins() {
    let ground = Ground::new();
    let mut daemon = ground.daemon(&[]).ready();
    let rate = |lr: f64| move |d: &mut crate::process::Daemon| d.json("GET", "/api/v1/status").1["learning_rate"] == lr;
    ground.write(&ground.text("[optim]\nlr = 1e-3\n"));
    daemon.until("a write in place is seen", rate(1e-3));
    fs::write(ground.path("new"), ground.text("[optim]\nlr = 2e-4\n")).unwrap();
    fs::rename(ground.path("new"), ground.path("c.toml")).unwrap();
    daemon.until("a rename is seen", rate(2e-4));
    // A refusal is told once, not at every look.
    ground.write(&ground.text("[optim]\nlrr = 1\n"));
    daemon.until("the typo is refused", |d| {
        d.metric("splitmask_config_reloads_total{outcome=\"invalid\"}") >= 1.0
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(daemon.metric("splitmask_config_reloads_total{outcome=\"invalid\"}"), 1.0);
    // Without the watch, a signal.
    ground.write(&ground.text("[optim]\nlr = 2e-4\n[admin]\nwatch = false\n"));
    daemon.until("the watch is off", |d| {
        d.metric("splitmask_config_reloads_total{outcome=\"applied\"}") == 3.0
    });
    ground.write(&ground.text("[optim]\nlr = 3e-4\n[admin]\nwatch = false\n"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(daemon.json("GET", "/api/v1/status").1["learning_rate"], 2e-4);
    daemon.signal("HUP");
    daemon.until("the signal is heard", rate(3e-4));
    let triggers = || -> Vec<String> { ground.journal().iter().map(|e| e["trigger"].as_str().unwrap().to_owned()).collect() };
    // It is written down behind the change itself.
    daemon.until("the journal has the signal", |_| triggers().len() >= 6);
    assert_eq!(triggers(), ["start", "file", "file", "file", "file", "signal"]);
}

#[test]
fn storm_of_reloads_is_merged_and_the_last_one_wins() {
    let ground = Ground::new();
    let mut daemon = ground.daemon(&[&format!("train.threads={PONDERS}")]).ready();
    let mut busy = 0;
    for i in 1..=40 {
        ground.write(&ground.text(&format!("[optim]\nlr = {}e-5\n", i + 10)));
        daemon.signal("HUP");
        if i % 4 == 0 {
            let (code, report) = daemon.json("POST", "/-/reload");
            assert!(matches!(code, 200 | 422 | 429), "{report}");
            busy += usize::from(code == 429);
        }
    }
    daemon.until("the last one", |d| d.json("GET", "/api/v1/status").1["learning_rate"] == 50e-5);
    let applied = daemon.metric("splitmask_config_reloads_total{outcome=\"applied\"}");
    assert!((1.0..20.0).contains(&applied), "merged: {applied} applied");
    assert!(busy > 0, "one at a time");
    assert_eq!(daemon.metric("splitmask_config_reloads_total{outcome=\"busy\"}"), busy as f64);
}

#[test]
fn admin_server_moves_and_lifecycle_can_be_taken_away() {
    let ground = Ground::new();
    let [free, address] = [0; 2].map(|_| SocketAddr::from(([127, 0, 0, 1], free_port())));
    ground.write(&ground.text(&format!("[admin]\nbind = \"{address}\"\nlifecycle = true\n")));
    let mut daemon = ground.daemon_with(&[], |c| {
        c.env("FAKE_DAEMON_SETS", "");
    });
    daemon.address = address;
    let mut daemon = daemon.ready();
    ground.write(&ground.text(&format!("[admin]\nbind = \"{free}\"\n")));
    daemon.address = free;
    daemon.until("the server moves", |d| {
        d.ask("GET", "/-/ready").is_some_and(|(code, _)| code == 200)
    });
    // Files are written by another thread than the one that answers.
    daemon.until("the lock tells the new address", |_| {
        ground.read("run/daemon.lock").contains(&free.to_string())
    });
    assert_eq!(daemon.ask("POST", "/-/reload").unwrap().0, 403);
    assert!(std::net::TcpStream::connect(address).is_err(), "the old address is closed");
}

#[test]
fn not_ready_is_503_and_a_reload_asked_for_meanwhile_comes_after() {
    let ground = Ground::new();
    let mut daemon = ground.daemon(&[&format!("train.threads={SLOW}"), "admin.watch=false"]);
    daemon.until("an answer", |d| d.ask("GET", "/-/healthy").is_some_and(|(code, _)| code == 200));
    assert_eq!(daemon.ask("GET", "/-/ready").unwrap().0, 503);
    assert_eq!(daemon.ask("POST", "/-/reload").unwrap().0, 503);
    assert_eq!(daemon.ask("POST", "/-/checkpoint").unwrap().0, 503);
    ground.write(&ground.text("[optim]\nlr = 1e-3\n"));
    daemon.signal("HUP");
    daemon.until("the new rate", |d| d.json("GET", "/api/v1/status").1["learning_rate"] == 1e-3);
}

#[test]
fn a_half_written_or_missing_file_and_an_edit_without_effect_are_told() {
    let ground = Ground::new();
    let mut daemon = ground.daemon(&["optim.clip=2.5"]).ready();
    let last = |d: &crate::process::Daemon| d.json("GET", "/api/v1/status").1["config"]["last_reload"].clone();
    // Its writer died within a line: what stands there is a valid value.
    ground.write(ground.text("[optim]\nlr = 1e-3\n").strip_suffix("-3\n").unwrap());
    daemon.until("the half file is told", |d| {
        last(d)["error"].as_str().is_some_and(|e| e.contains("does not end with a newline"))
    });
    assert_eq!(daemon.metric("splitmask_config_reloads_total{outcome=\"applied\"}"), 0.0);
    ground.write(&ground.text("[optim]\nlr = 1e-3\n"));
    daemon.until("the whole file", |d| d.json("GET", "/api/v1/status").1["learning_rate"] == 1e-3);
    // Whoever means it says so.
    ground.write(ground.text("[optim]\nlr = 1e-4\n").trim_end());
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!((code, report["outcome"].as_str()), (200, Some("applied")), "{report}");

    ground.write(&ground.text("[optim]\nlr = 1e-4\nclip = 1.5\n"));
    daemon.until("the edit without effect", |d| {
        last(d)["shadowed"].to_string().contains("optim.clip = 1.5 at")
    });
    let (_, report) = daemon.json("POST", "/-/reload");
    assert_eq!(report["outcome"], "unchanged");
    let said = report["shadowed"].to_string();
    assert!(
        said.contains("optim.clip") && said.contains("the command line (--set) sets 2.5"),
        "{report}"
    );

    // What check-config warns of is told once, by whatever brings it.
    ground.write(&ground.text("[optim]\nlr = 1e-4\n[checkpoint]\nevery_steps = 1000000000\n"));
    daemon.until("the odd edit", |d| {
        d.log().contains("checkpoint.every_steps = 1000000000 is beyond")
    });
    ground.write(&ground.text("[optim]\nlr = 2e-4\n[checkpoint]\nevery_steps = 1000000000\n"));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert!(code == 200 && report.get("warnings").is_none(), "{report}");
    ground.write(&ground.text("[optim]\nlr = 1e-4\n"));
    daemon.until("the edit is taken back", |d| {
        d.json("GET", "/api/v1/status").1["learning_rate"] == 1e-4
    });

    fs::rename(ground.path("c.toml"), ground.path("away")).unwrap();
    daemon.until("the missing file is told", |d| {
        last(d)["error"].as_str().is_some_and(|e| e.contains("cannot be read"))
    });
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(daemon.log().matches("cannot be read").count(), 1, "once: {}", daemon.log());
    fs::rename(ground.path("away"), ground.path("c.toml")).unwrap();
    daemon.until("its return", |d| last(d)["outcome"] == "unchanged");
}
