//! Start, endpoints, signals, the end; who may do what; what must never be told.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::fake::{PANICS, STUBBORN};
use crate::process::{Ground, files, request};

#[test]
fn terminate_checkpoints_exits_75_and_the_next_start_goes_on() {
    let ground = Ground::new();
    let mut daemon = ground.daemon(&[]).ready();
    daemon.until("some steps", |d| d.step() > 5);
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
    let stop = ground.journal().pop().unwrap();
    assert_eq!(
        (&stop["event"], &stop["outcome"], &stop["trigger"]),
        (&"stop".into(), &"stopped".into(), &"signal".into())
    );
    let step = stop["step"].as_u64().unwrap();
    let mut daemon = ground.daemon(&["optim.lr=1e-3"]).ready();
    assert!(daemon.step() > step);
    // The line of the start is written by the thread that watches the trainer, a moment after its first step.
    daemon.until("the start in the journal", |_| {
        ground.journal().last().is_some_and(|line| line["event"] == "start")
    });
    assert!(
        daemon.log().contains(&format!("going on from the checkpoint at step {step}")),
        "{}",
        daemon.log()
    );
    let start = ground.journal().pop().unwrap();
    assert_eq!(
        start["changes"][1]["path"], "optim.lr",
        "what differs from the checkpoint is told: {start}"
    );
    assert_eq!(daemon.ask("POST", "/-/quit").unwrap().0, 202);
    assert_eq!(daemon.end(), 75);
}

#[test]
fn second_signal_and_grace_end_a_trainer_that_does_not_stop() {
    let stubborn = format!("train.threads={STUBBORN}");
    let ground = Ground::new();
    let mut daemon = ground.daemon(&[&stubborn]).ready();
    daemon.signal("INT");
    let asked = Instant::now();
    daemon.until("draining", |d| {
        d.ask("GET", "/-/ready")
            .is_some_and(|(code, body)| code == 503 && body.contains("draining"))
    });
    daemon.signal("TERM");
    std::thread::sleep(Duration::from_millis(1200).saturating_sub(asked.elapsed()));
    daemon.signal("TERM");
    let began = Instant::now();
    assert_eq!(daemon.end(), 75);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(ground.read("log").contains("stopped at once"));
    let daemon = ground.daemon(&[&stubborn, "admin.grace_s=0.3"]).ready();
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
    assert!(ground.read("log").contains("admin.grace_s = 0.3 ran out"));
}

#[test]
fn finished_runs_exit_0_and_panics_70() {
    let ground = Ground::new();
    assert_eq!(ground.daemon(&["optim.total_steps=5", "optim.warmup_steps=1"]).end(), 0);
    assert_eq!(ground.journal().pop().unwrap()["outcome"], "finished");
    let ground = Ground::new();
    let (code, said) = ground.refused(&[&format!("train.threads={PANICS}")]);
    assert_eq!(code, 70);
    assert!(said.contains("the trainer panicked: planted"), "{said}");
}

#[test]
fn usr1_writes_a_checkpoint() {
    let ground = Ground::new();
    let mut daemon = ground.daemon(&[]).ready();
    daemon.signal("USR1");
    daemon.until("a checkpoint", |d| d.log().contains("checkpoint by signal"));
    assert_eq!(fs::read_dir(ground.path("run/checkpoints")).unwrap().count(), 1);
}

#[test]
fn run_folder_in_use_names_its_holder() {
    let ground = Ground::new();
    let daemon = ground.daemon(&[]).ready();
    let (code, said) = ground.refused(&[]);
    assert_eq!(code, 64);
    assert!(
        said.contains("in use by") && said.contains(&format!("pid={}", daemon.pid())) && said.contains(&daemon.address.to_string()),
        "{said}"
    );
}

#[test]
fn refused_starts_exit_64_and_leave_nothing() {
    let ground = Ground::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("admin.bind={}", holder.local_addr().unwrap());
    fs::write(ground.path("short"), "tooshort").unwrap();
    let short = format!("admin.token_file={}", ground.path("short").display());
    let table: &[(&[&str], &[&str])] = &[
        (&["optim.lrr=1"], &["command line", "optim.lrr", "did you mean optim.lr?"]),
        (&["data.train=nowhere"], &["nowhere: no shards found", "splitmask pack"]),
        (&["admin.bind=0.0.0.0:0"], &["admin.bind = \"0.0.0.0:0\"", "admin.token_file"]),
        (&["admin.bind=[::]:0"], &["admin.bind", "admin.token_file"]),
        (&["admin.bind=0.0.0.0:0", &short], &["admin.token_file", "8 bytes", "at least 32"]),
        (&[&taken], &["admin.bind", "in use"]),
    ];
    for (sets, words) in table {
        let (code, said) = ground.refused(sets);
        assert_eq!(code, 64, "{sets:?}: {said}");
        for word in *words {
            assert!(said.contains(word), "{sets:?}: {word:?} is not in {said}");
        }
        assert!(!ground.path("run").exists(), "{sets:?} left something");
    }
}

#[test]
fn start_with_another_geometry_or_a_broken_file_is_refused() {
    let ground = Ground::new();
    let daemon = ground.daemon(&[]).ready();
    assert_eq!(daemon.json("POST", "/-/checkpoint").0, 200);
    daemon.signal("TERM");
    daemon.end();
    let before = files(&ground.path("run"));
    let (code, said) = ground.refused(&["model.depth=3", "run.seed=5"]);
    assert_eq!(code, 64);
    assert!(
        said.contains("model.depth 0 → 3 (frozen)") && said.contains("run.seed 0 → 5 (frozen)") && said.contains("run.init_from"),
        "{said}"
    );
    ground.write(&ground.text("[optim]\nlr = \n"));
    let (code, said) = ground.refused(&[]);
    assert_eq!(code, 64);
    assert!(said.contains("c.toml:") && said.contains("last-good.toml"), "{said}");
    assert_eq!(files(&ground.path("run")), before, "nothing was written");
}

#[test]
fn endpoints_answer_as_documented() {
    let ground = Ground::new();
    let daemon = ground.daemon(&["admin.watch=false"]).ready();
    let table: &[(&str, &str, u16, &str)] = &[
        ("GET", "/", 200, "<!doctype html>"),
        ("GET", "/metrics", 200, "# TYPE splitmask_config_reloads_total counter"),
        ("GET", "/-/healthy", 200, "healthy"),
        ("GET", "/-/ready", 200, "ready"),
        ("GET", "/api/v1/status", 200, "\"run\":\"fake\""),
        ("GET", "/api/v1/config", 200, "\"class\":\"frozen\""),
        ("GET", "/inpaint.png", 404, "picture.every_steps"),
        ("HEAD", "/-/healthy", 200, ""),
        ("GET", "/-/reload", 405, "another method"),
        ("GET", "/-/quit", 405, "another method"),
        ("DELETE", "/-/quit", 405, "another method"),
        ("POST", "/metrics", 405, "another method"),
        ("GET", "/nowhere", 404, "no such endpoint"),
        ("GET", "/../c.toml", 404, "no such endpoint"),
        ("POST", "/-/reload", 200, "\"outcome\":\"unchanged\""),
        ("POST", "/-/checkpoint", 200, "\"step\":"),
    ];
    for (method, path, code, words) in table {
        let (got, body) = daemon.ask(method, path).unwrap();
        assert_eq!(got, *code, "{method} {path}: {body}");
        assert!(body.contains(words), "{method} {path}: {words:?} is not in {body}");
    }
    let (_, status) = daemon.json("GET", "/api/v1/status");
    for key in [
        "run",
        "step",
        "epoch",
        "cursor",
        "images_per_second",
        "data_wait_ratio",
        "losses",
        "learning_rate",
        "last_checkpoint_step",
        "config",
        "faults",
        "queue",
    ] {
        assert!(!status[key].is_null() || key == "last_checkpoint_step", "{key} in {status}");
    }
    assert_eq!(status["faults"]["corrupt"], 2);
    let (_, config) = daemon.json("GET", "/api/v1/config");
    let lr = config["settings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["path"] == "optim.lr")
        .unwrap();
    assert_eq!((&lr["value"], &lr["class"]), (&1.5e-3.into(), &"live".into()));
    fs::write(ground.path("run/inpaint.png"), "picture").unwrap();
    assert_eq!(daemon.ask("GET", "/inpaint.png").unwrap(), (200, "picture".into()));
}

#[test]
fn posts_need_lifecycle_and_every_verb_is_guarded() {
    let ground = Ground::new();
    let daemon = ground.daemon(&["admin.lifecycle=false"]).ready();
    for (method, path) in [
        ("POST", "/-/reload"),
        ("POST", "/-/checkpoint"),
        ("POST", "/-/quit"),
        ("DELETE", "/-/quit"),
        ("PUT", "/"),
        ("PATCH", "/metrics"),
    ] {
        let (code, body) = daemon.ask(method, path).unwrap();
        assert_eq!(code, 403, "{method} {path}");
        assert!(body.contains("--enable-lifecycle"));
    }
    assert!(daemon.step() > 0, "it runs on");
}

#[test]
fn token_is_asked_for_and_no_secret_is_ever_told() {
    let ground = Ground::new();
    let canary = "CANARY-0123456789abcdef0123456789abcdef";
    fs::write(ground.path("token"), format!("{canary}\n")).unwrap();
    let token = format!("admin.token_file={}", ground.path("token").display());
    let mut daemon = ground.daemon_with(&[&token, "log.filter=trace", "admin.watch=false"], |c| {
        c.env("AWS_SECRET_ACCESS_KEY", canary).env("AZURE_STORAGE_SAS_TOKEN", canary);
    });
    daemon.until("ready", |d| d.ask("GET", "/-/ready").is_some_and(|(code, _)| code == 200));
    let post = |path: &str, headers: &str| request(daemon.address, "POST", path, headers).unwrap();
    let mut told = Vec::new();
    for (headers, code) in [
        ("Host: x\r\n".to_owned(), 401),
        (format!("Host: x\r\nAuthorization: Bearer {canary}x\r\n"), 401),
        (
            format!("Host: x\r\nOrigin: http://evil.example\r\nAuthorization: Bearer {canary}\r\n"),
            403,
        ),
        (
            format!("Host: x\r\nContent-Length: 70000\r\nAuthorization: Bearer {canary}\r\n"),
            413,
        ),
        (format!("Host: x\r\nAuthorization: Bearer {canary}\r\n"), 200),
    ] {
        let (got, body) = post("/-/reload", &headers);
        assert_eq!(got, code, "{headers}");
        told.push(body);
    }
    // A file that tries to hold one.
    for more in [
        format!("[data.options]\nsecret_key = \"{canary}\"\n"),
        format!("[pipeline]\ncache_dir = \"s3://me:{canary}@x/y\"\n"),
        format!("[optim]\nlr = \"https://x/?sig={canary}\"\n"),
    ] {
        ground.write(&ground.text(&more));
        let (code, body) = post("/-/reload", &format!("Host: x\r\nAuthorization: Bearer {canary}\r\n"));
        assert_eq!(code, 422, "{body}");
        told.push(body);
    }
    for path in ["/", "/metrics", "/api/v1/status", "/api/v1/config", "/-/healthy"] {
        told.push(daemon.ask("GET", path).unwrap().1);
    }
    post("/-/checkpoint", &format!("Host: x\r\nAuthorization: Bearer {canary}\r\n"));
    daemon.signal("TERM");
    let log = daemon.log();
    assert_eq!(daemon.end(), 75);
    told.push(log + &ground.read("log"));
    told.extend(
        files(&ground.path("run"))
            .into_iter()
            .map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()),
    );
    assert!(told.iter().any(|t| t.contains("config reload")) && told.len() > 14);
    for text in told {
        assert!(!text.contains("CANARY"), "told: {text}");
    }
}

#[test]
fn idle_clients_and_long_headers_do_not_keep_the_server() {
    let ground = Ground::new();
    let daemon = ground.daemon(&[]).ready();
    let mut idle: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(daemon.address).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    let (code, _) = daemon.ask("GET", "/-/healthy").unwrap();
    assert_eq!(code, 200);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let mut rest = String::new();
    idle[0].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = idle[0].read_to_string(&mut rest);
    assert!(!rest.contains("200 OK"), "{rest}");
    drop(idle);
    let (code, _) = request(
        daemon.address,
        "GET",
        "/-/healthy",
        &format!("Host: x\r\nX-Long: {}\r\n", "a".repeat(1_000_000)),
    )
    .unwrap_or((431, String::new()));
    assert_eq!(code, 431);
    assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200);
}

#[test]
fn service_manager_is_told() {
    let ground = Ground::new();
    let socket = UnixDatagram::bind(ground.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let heard = |word: &str| {
        let mut buffer = [0; 4096];
        loop {
            let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("never heard {word}: {e}"));
            let message = String::from_utf8_lossy(&buffer[..n]).into_owned();
            if message.contains(word) {
                return message;
            }
        }
    };
    let daemon = ground.daemon_with(&["admin.watch=false"], |c| {
        c.env("NOTIFY_SOCKET", ground.path("notify"));
    });
    heard("READY=1");
    ground.write(&ground.text("[optim]\nlr = 1e-3\n"));
    daemon.signal("HUP");
    assert!(
        heard("RELOADING=1").contains("MONOTONIC_USEC="),
        "systemd wants both in one message"
    );
    heard("READY=1");
    assert!(heard("STATUS=").contains("step "));
    daemon.signal("TERM");
    assert!(heard("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    assert_eq!(daemon.end(), 75);
}
