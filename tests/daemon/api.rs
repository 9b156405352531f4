//! `/api/v1/*` and what may change a config: as docs/openapi.json describes them, and no farther than the run folder.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::process::{Ground, files, request};
use crate::schema::mismatches;

fn description() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What a path of the description stands for here.
fn instance(path: &str) -> String {
    path.replace("{name}", "inpaint")
        .replace("{step}", "1000")
        .replace("{file}", "main.js")
}

#[test]
fn answers_of_a_live_daemon_are_as_described() {
    let ground = Ground::new();
    let run = ground.path("run");
    fs::create_dir_all(run.join("pictures/inpaint")).unwrap();
    for file in ["inpaint.png", "curves.svg", "pictures/inpaint/step-00001000.png"] {
        fs::write(run.join(file), "picture").unwrap();
    }
    let lines = "{\"step\":1,\"inpaint\":6.5,\"learning_rate\":0.1,\"time\":1.0}\n{\"step\":2,\"inpaint\":null,\"time\":2.0}\n{\"step\":2,\"knn_accuracy\":0.5}\n";
    fs::write(run.join("metrics.jsonl"), lines).unwrap();
    let daemon = ground.daemon(&["admin.watch=false"]).ready();
    let described = description();
    assert_eq!(daemon.json("POST", "/-/checkpoint").0, 200);
    let check = |method: &str, path: &str, code: u16, body: &str| {
        let responses = &described["paths"][path][method.to_lowercase()]["responses"];
        let response = &responses[code.to_string()];
        assert!(response.is_object(), "{method} {path}: {code} is not described: {body}");
        if let Some(schema) = response["content"]["application/json"]["schema"].as_object() {
            let answer: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{method} {path}: {e}: {body}"));
            let wrong = mismatches(&described, &json!(schema), &answer);
            assert_eq!(wrong, [""; 0], "{method} {path}: {answer}");
        }
    };
    for (path, methods) in described["paths"].as_object().unwrap() {
        if methods["get"].is_object() {
            let (code, body) = daemon.ask("GET", &instance(path)).unwrap();
            assert_eq!(code, 200, "GET {path}: {body}");
            check("GET", path, code, &body);
        }
    }
    // The pipeline's rates once there is something to compare with, a history that is not there, and what acts.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let (code, body) = daemon.ask("GET", "/api/v1/pipeline").unwrap();
    check("GET", "/api/v1/pipeline", code, &body);
    assert!(body.contains("\"window_seconds\":2."), "{body}");
    for (method, asked, path, body, want) in [
        ("GET", "/api/v1/history?of=before-1", "/api/v1/history", "", 404),
        ("POST", "/-/reload?dry_run=1", "/-/reload", "", 200),
        ("POST", "/-/reload?dry_run=1", "/-/reload", "[optim]\nlr = \n", 422),
        (
            "POST",
            "/-/reload?dry_run=1",
            "/-/reload",
            &ground.text("[model]\ndepth = 3\n"),
            409,
        ),
        ("POST", "/-/reload", "/-/reload", &ground.text("[optim]\nlr = 1e-3\n"), 428),
        ("POST", "/-/reload?dryrun=1", "/-/reload", "", 400),
        ("POST", "/-/reload", "/-/reload", "", 200),
        ("POST", "/-/checkpoint", "/-/checkpoint", "", 200),
        ("POST", "/-/pause", "/-/pause", "", 200),
        ("POST", "/-/pause", "/-/pause", "", 200),
        ("GET", "/api/v1/status", "/api/v1/status", "", 200),
        ("POST", "/-/resume", "/-/resume", "", 200),
        ("POST", "/-/resume", "/-/resume", "", 200),
        ("POST", "/-/quit", "/-/quit", "", 202),
    ] {
        let (code, answer) = daemon.send(method, asked, "", body);
        assert_eq!(code, want, "{method} {asked}: {answer}");
        check(method, path, code, &answer);
    }
}

#[test]
fn the_history_goes_on_over_restarts_and_events_with_it() {
    let ground = Ground::new();
    fs::create_dir_all(ground.path("run")).unwrap();
    let line = |step: u32| format!("{{\"step\":{step},\"total\":{step}.5}}\n");
    fs::write(ground.path("run/metrics.jsonl"), (1..=5000).map(line).collect::<String>()).unwrap();
    fs::write(ground.path("run/metrics.before-3.jsonl"), line(7)).unwrap();
    let daemon = ground.daemon(&["admin.watch=false"]).ready();
    let total = |history: &Value| {
        history["series"]
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["name"] == "total")
            .unwrap()
            .clone()
    };
    let (_, history) = daemon.json("GET", "/api/v1/history");
    let points = total(&history)["points"].as_array().unwrap().clone();
    assert!((1000..=2000).contains(&points.len()), "{}", points.len());
    assert_eq!((&points[0], &points[points.len() - 1]), (&json!([1, 1.5]), &json!([5000, 5000.5])));
    assert_eq!(history["earlier"], json!(["before-3"]));
    let (_, earlier) = daemon.json("GET", "/api/v1/history?of=before-3");
    assert_eq!(total(&earlier)["points"], json!([[7, 7.5]]));
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
    let mut file = fs::OpenOptions::new().append(true).open(ground.path("run/metrics.jsonl")).unwrap();
    std::io::Write::write_all(&mut file, line(5001).as_bytes()).unwrap();
    let mut daemon = ground.daemon(&["admin.watch=false", "optim.lr=1e-3"]).ready();
    let (_, history) = daemon.json("GET", "/api/v1/history");
    assert_eq!(history["last_step"], 5001);
    let kinds = |events: &Value| -> Vec<String> {
        let all = events["events"].as_array().unwrap();
        all.iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect()
    };
    // The journal is written by a thread of its own.
    let mut events = Value::Null;
    daemon.until("the second start is among the events", |d| {
        events = d.json("GET", "/api/v1/events").1;
        kinds(&events).iter().filter(|kind| *kind == "start").count() == 2
    });
    let kinds = kinds(&events);
    assert!(
        kinds.contains(&"stop".to_owned()) && kinds.contains(&"checkpoint".to_owned()),
        "{kinds:?}"
    );
    let second = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .rfind(|e| e["event"] == "start")
        .unwrap();
    let changed = second["changes"].as_array().unwrap();
    assert!(
        changed.iter().any(|c| c["path"] == "optim.lr" && c["class"] == "live"),
        "{changed:?}"
    );
}

#[test]
fn only_files_of_the_run_that_there_can_be_are_served() {
    let ground = Ground::new();
    fs::create_dir_all(ground.path("run/pictures/inpaint")).unwrap();
    fs::write(ground.path("secret.png"), "CANARY").unwrap();
    fs::write(ground.path("run/secret.png"), "CANARY").unwrap();
    fs::create_dir_all(ground.path("run/pictures/secret")).unwrap();
    symlink(ground.path("secret.png"), ground.path("run/pictures/secret/step-00000001.png")).unwrap();
    let daemon = ground.daemon(&[]).ready();
    for path in [
        "/secret.png",
        "/../secret.png",
        "/..%2fsecret.png",
        "/run/secret.png",
        "/page/../../secret.png",
        "/page/..%2f..%2fsecret.png",
        "/page/%2e%2e%2fmod.rs",
        "/api/v1/pictures/secret/1",
        "/api/v1/pictures/../1",
        "/api/v1/pictures/..%2f..%2fsecret/1",
        "/api/v1/pictures/inpaint%2f..%2fsecret/1",
        "/api/v1/pictures/inpaint/..%2f..%2fsecret.png",
        "/api/v1/pictures/inpaint/-1",
        "/api/v1/history?of=../c.toml",
        "/api/v1/history?of=before-..%2f1",
        "/api/v1/history?path=/etc/passwd",
        "/api/v1/config/text/../text/x",
    ] {
        let (code, body) = daemon.ask("GET", path).unwrap();
        assert!((400..500).contains(&code), "{path}: {code} {body}");
        assert!(!body.contains("CANARY"), "{path}");
    }
}

#[test]
fn a_text_is_written_whole_once_it_is_valid_and_by_those_who_may() {
    let ground = Ground::new();
    fs::write(ground.path("token"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let token = format!("admin.token_file={}", ground.path("token").display());
    let daemon = ground.daemon(&["admin.watch=false", &token]).ready();
    let bearer = "Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n";
    let new = ground.text("[optim]\nlr = 1e-3\n");
    // Neither the text nor a check of one is for those without the token, nor for a script of another site.
    for (method, path) in [
        ("GET", "/api/v1/config/text"),
        ("POST", "/-/reload?dry_run=1"),
        ("POST", "/-/reload"),
    ] {
        assert_eq!(daemon.send(method, path, "", &new).0, 401, "{method} {path}");
        let elsewhere = format!("{bearer}Origin: http://evil.example\r\n");
        assert_eq!(daemon.send(method, path, &elsewhere, &new).0, 403, "{method} {path}");
    }
    let (code, text) = daemon.send("GET", "/api/v1/config/text", bearer, "");
    assert_eq!(code, 200, "{text}");
    let text: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text["text"], ground.text(""));
    let matching = |digest: &str| format!("{bearer}If-Match: \"{digest}\"\r\n");
    let current = text["sha256"].as_str().unwrap();
    let (code, report) = daemon.send("POST", "/-/reload?dry_run=1", bearer, &new);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (code, &report["dry_run"], &report["outcome"]),
        (200, &json!(true), &json!("applied"))
    );
    assert_eq!(
        report["changes"],
        json!([{ "path": "optim.lr", "old": "0.0015", "new": "0.001", "class": "live" }])
    );
    for (digest, body, want) in [
        (&"0".repeat(64)[..], new.clone(), 412),
        (current, "[optim]\nlr = \n".into(), 422),
        (current, ground.text("[model]\ndepth = 3\n"), 409),
    ] {
        let (code, answer) = daemon.send("POST", "/-/reload", &matching(digest), &body);
        assert_eq!(code, want, "{answer}");
    }
    let large = format!("Host: x\r\n{}Content-Length: 70000\r\n", matching(current));
    let (code, answer) = request(daemon.address, "POST", "/-/reload", &large).unwrap();
    assert!(code == 413 && answer.contains("{\"error\":"), "{code} {answer}");
    assert_eq!(ground.read("c.toml"), ground.text(""), "nothing was written");
    assert_eq!(
        daemon.metric("splitmask_config_last_reload_successful"),
        1.0,
        "the file is as good as it was"
    );
    let (code, report) = daemon.send("POST", "/-/reload", &matching(current), &new);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (code, &report["outcome"], &report["changes"][0]["path"]),
        (200, &json!("applied"), &json!("optim.lr"))
    );
    assert_eq!(ground.read("c.toml"), new);
    assert!(ground.read("run/fake.log").contains("lr=0.001"));
    // Who still has the old file is told.
    assert_eq!(daemon.send("POST", "/-/reload", &matching(current), &ground.text("")).0, 412);
    let kept = files(&ground.path("."));
    assert!(
        !kept.iter().any(|(p, _)| p.to_string_lossy().contains(".edit-")),
        "nothing is left beside it"
    );
}
