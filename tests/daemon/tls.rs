//! The admin port over TLS, asked by curl; who holds which token; and that no secret is told anywhere.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::process::{Daemon, Ground, files};

/// Makes a certificate for 127.0.0.1 that nobody vouches for, and its key.
fn pair(ground: &Ground, name: &str) -> (PathBuf, PathBuf) {
    let (cert, key) = (ground.path(&format!("{name}.crt")), ground.path(&format!("{name}.key")));
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl is needed: apt-get install openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (cert, key)
}

/// What curl is answered; none if the connection or the certificate is not to its liking.
fn curl(daemon: &Daemon, path: &str, more: &[&str]) -> Option<String> {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "20"])
        .args(more)
        .arg(format!("https://{}{path}", daemon.address))
        .output()
        .expect("curl is needed: apt-get install curl");
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_certificate_is_served_renewed_and_kept_where_the_new_one_is_broken() {
    let ground = Ground::new();
    let [one, two] = ["one", "two"].map(|name| pair(&ground, name));
    let (cert, key) = (ground.path("served.crt"), ground.path("served.key"));
    let put = |from: (&PathBuf, &PathBuf)| {
        fs::copy(from.0, &cert).unwrap();
        fs::copy(from.1, &key).unwrap();
    };
    put((&one.0, &one.1));
    let text = format!("[admin]\ntls_cert = {cert:?}\ntls_key = {key:?}\n");
    ground.write(&ground.text(&text));
    let mut daemon = ground.daemon(&["admin.watch=false"]);
    daemon.until("it answers", |d| curl(d, "/-/ready", &["-k"]).is_some_and(|body| body == "ready\n"));
    assert!(curl(&daemon, "/metrics", &["-k"]).unwrap().contains("splitmask_train_steps_total"));
    assert_eq!(curl(&daemon, "/metrics", &[]), None, "nobody vouches for it");
    let trusts = |d: &Daemon, (cert, _): &(PathBuf, PathBuf)| curl(d, "/-/healthy", &["--cacert", cert.to_str().unwrap()]).is_some();
    assert!(trusts(&daemon, &one) && !trusts(&daemon, &two));
    assert!(
        daemon.log().contains(&format!("admin page at https://{}/", daemon.address)),
        "{}",
        daemon.log()
    );
    // Who speaks plain HTTP to it is told so, in plain HTTP.
    let (code, body) = daemon.ask("GET", "/metrics").unwrap();
    assert!(code == 400 && body.contains("this port speaks TLS"), "{code} {body}");

    // The certificate of one with the key of the other: told, and nobody notices.
    let taken = |d: &Daemon, value: &str| {
        let series = format!("splitmask_admin_tls_last_load_successful {value}\n");
        curl(d, "/metrics", &["-k"]).is_some_and(|text| text.contains(&series))
    };
    assert!(taken(&daemon, "1"));
    put((&two.0, &one.1));
    daemon.until("the mismatch", |d| taken(d, "0"));
    assert!(trusts(&daemon, &one));
    let told = |ground: &Ground, outcome: &str| {
        let lines = ground.journal();
        lines
            .into_iter()
            .rfind(|line| line["event"] == "certificate" && line["outcome"] == outcome)
    };
    daemon.until("its line in the journal", |_| told(&ground, "invalid").is_some());
    let error = told(&ground, "invalid").unwrap()["error"].to_string();
    assert!(error.contains("admin.tls_cert: cannot be served with the key"), "{error}");
    // The renewed pair, without a word from anybody.
    put((&two.0, &two.1));
    daemon.until("the new one", |d| taken(d, "1"));
    assert!(trusts(&daemon, &two) && !trusts(&daemon, &one));
    daemon.until("its line in the journal", |_| told(&ground, "applied").is_some());

    // A reload takes TLS away, on the same port.
    ground.write(&ground.text(""));
    daemon.signal("HUP");
    daemon.until("plain HTTP", |d| d.ask("GET", "/-/healthy").is_some_and(|(code, _)| code == 200));
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);

    // Half a pair and no pair are refused at a start, with the key's name.
    fs::write(&key, "CANARY").unwrap();
    for (more, words) in [
        (format!("[admin]\ntls_cert = {cert:?}\n"), "admin.tls_key"),
        (format!("[admin]\ntls_key = {key:?}\n"), "admin.tls_cert"),
        (text, "holds no private key"),
    ] {
        ground.write(&ground.text(&more));
        let (code, said) = ground.refused(&[]);
        assert!(code == 64 && said.contains(words) && !said.contains("CANARY"), "{code} {said}");
    }
}

#[test]
fn each_token_opens_its_door_and_no_secret_is_told_anywhere() {
    let ground = Ground::new();
    let secrets = ["ACTS", "LOOKS", "STORE"].map(|name| format!("CANARY-{name}-0123456789abcdef0123456789abcdef"));
    let [acts, looks, store] = &secrets;
    fs::write(ground.path("token"), acts).unwrap();
    fs::write(ground.path("read-token"), looks).unwrap();
    let (cert, key) = pair(&ground, "one");
    let private = fs::read_to_string(&key).unwrap();
    let private = private.lines().nth(1).unwrap().to_owned();
    let admin = format!(
        "[admin]\ntoken_file = {:?}\nread_token_file = {:?}\ntls_cert = {cert:?}\ntls_key = {key:?}\n",
        ground.path("token"),
        ground.path("read-token")
    );
    ground.write(&ground.text(&admin));
    let mut daemon = ground.daemon_with(&["admin.watch=false", "log.filter=trace"], |command| {
        command.env("AWS_SECRET_ACCESS_KEY", store).env("AZURE_STORAGE_SAS_TOKEN", store);
    });
    daemon.until("it answers", |d| curl(d, "/-/ready", &["-k"]).is_some_and(|body| body == "ready\n"));
    let mut told = Vec::new();
    // Status of an answer, and the answer kept to look through.
    let mut ask = |method: &str, path: &str, credentials: &[&str]| {
        let arguments = [&["-k", "-i", "-X", method][..], credentials].concat();
        let answer = curl(&daemon, path, &arguments).unwrap_or_else(|| panic!("{method} {path}: no answer"));
        let code: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        told.push(answer);
        code
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let (with_acts, with_looks) = (bearer(acts), bearer(looks));
    let user = format!("anybody:{looks}");
    let reads = [
        "/",
        "/metrics",
        "/page/main.js",
        "/api/v1/status",
        "/api/v1/config",
        "/api/v1/events",
        "/api/v1/history",
        "/api/v1/pipeline",
    ];
    for path in reads {
        assert_eq!(ask("GET", path, &[]), 401, "{path}");
        assert_eq!(ask("GET", path, &["-H", "Authorization: Bearer wrong"]), 401, "{path}");
        for credentials in [["-H", &with_looks], ["-u", &user], ["-H", &with_acts]] {
            assert_eq!(ask("GET", path, &credentials), 200, "{path}");
        }
    }
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(ask("GET", path, &[]), 200, "{path}");
    }
    assert_eq!(ask("GET", "/api/v1/config/text", &["-H", &with_looks]), 401);
    for path in ["/-/reload", "/-/checkpoint", "/-/pause", "/-/resume", "/-/quit"] {
        for credentials in [&[][..], &["-H", &with_looks], &["-u", &user]] {
            assert_eq!(ask("POST", path, credentials), 401, "{path}");
        }
    }
    assert_eq!(ask("POST", "/-/pause", &["-H", &with_acts]), 200);
    // Why it stands still is for those who may look.
    assert_eq!(ask("GET", "/-/ready", &[]), 503);
    assert_eq!(ask("GET", "/-/ready", &["-H", &with_looks]), 503);
    assert_eq!(ask("POST", "/-/resume", &["-H", &with_acts]), 200);
    assert_eq!(ask("POST", "/-/checkpoint", &["-H", &with_acts]), 200);
    // Files that hold less than a token, the same one twice, and a config that tries to hold a secret.
    for (file, content) in [
        ("read-token", acts.clone()),
        ("read-token", "CANARY".into()),
        ("token", looks.clone()),
    ] {
        let before = fs::read(ground.path(file)).unwrap();
        fs::write(ground.path(file), content).unwrap();
        assert_eq!(ask("POST", "/-/reload", &["-H", &with_acts]), 422, "{file}");
        fs::write(ground.path(file), before).unwrap();
    }
    ground.write(&ground.text(&format!("{admin}[data.options]\nsecret = \"{store}\"\n")));
    assert_eq!(ask("POST", "/-/reload", &["-H", &with_acts]), 422);
    let by_state: Vec<bool> = told
        .iter()
        .filter(|t| t.starts_with("HTTP/1.1 503"))
        .map(|t| t.contains("asked for"))
        .collect();
    assert_eq!(by_state, [false, true]);
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
    told.push(ground.read("log"));
    let kept = files(&ground.path("run"));
    assert!(kept.iter().any(|(path, _)| path.ends_with("journal.jsonl")) && kept.iter().any(|(path, _)| path.ends_with("config.toml")));
    told.extend(kept.into_iter().map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()));
    assert!(told.len() > 60, "{}", told.len());
    for text in told {
        assert!(!text.contains("CANARY") && !text.contains(&private), "told: {text}");
    }
}
