//! Disks that hang, pipes in place of files, folders that vanish, clients that never read: the daemon answers its signals all the same.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::preload::Faults;
use crate::process::{Ground, files, request};

/// Opening a file of the ground with `name` in its path hangs, as on a disk whose server is away, once the file `flag` is there.
fn hanging(ground: &Ground, name: &str) -> Faults {
    Faults::below(&ground.path(""))
        .meet("open*", &format!("*{name}*"), 0, "hang")
        .only_while(&ground.path("flag"))
}

#[test]
fn a_config_file_that_hangs_keeps_neither_the_answer_nor_the_stop() {
    let ground = Ground::new();
    let mut daemon = ground
        .daemon_with(&["admin.watch=true"], |c| {
            hanging(&ground, "c.toml").preload(c);
        })
        .ready();
    fs::write(ground.path("flag"), "").unwrap();
    let began = Instant::now();
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!((code, report["outcome"].as_str()), (500, Some("failed")), "{report}");
    assert!(report["error"].as_str().unwrap().contains("no answer for 10 s"), "{report}");
    assert!(began.elapsed() < Duration::from_secs(20));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!(code, 500);
    assert!(
        report["error"].as_str().unwrap().contains("without an answer"),
        "one thread that hangs is enough: {report}"
    );
    let step = daemon.step();
    daemon.until("the run goes on", |d| d.step() > step + 2);
    daemon.signal("TERM");
    let began = Instant::now();
    assert_eq!(daemon.end(), 75);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_start_whose_files_hang_can_be_stopped() {
    for path in ["c.toml", "daemon.lock"] {
        let ground = Ground::new();
        fs::write(ground.path("flag"), "").unwrap();
        let daemon = ground.daemon_with(&[], |c| {
            hanging(&ground, path).preload(c);
        });
        std::thread::sleep(Duration::from_millis(500));
        daemon.signal("TERM");
        let began = Instant::now();
        assert_eq!(daemon.end(), 75, "{path}: {}", ground.read("log"));
        assert!(began.elapsed() < Duration::from_secs(5), "{path}: {:?}", began.elapsed());
    }
}

#[test]
fn a_journal_on_a_disk_that_hangs_keeps_nobody() {
    let ground = Ground::new();
    let mut daemon = ground
        .daemon_with(&["admin.watch=false"], |c| {
            hanging(&ground, "last-good.toml").preload(c);
        })
        .ready();
    fs::write(ground.path("flag"), "").unwrap();
    ground.write(&ground.text("[optim]\nlr = 1e-3\n"));
    assert_eq!(daemon.json("POST", "/-/reload").0, 200);
    ground.write(&ground.text("[optim]\nlr = 1e-4\n"));
    assert_eq!(daemon.json("POST", "/-/reload").0, 200);
    let step = daemon.step();
    daemon.until("the run goes on", |d| d.step() > step + 2);
    daemon.signal("TERM");
    let began = Instant::now();
    assert_eq!(daemon.end(), 75);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_history_on_a_disk_that_hangs_keeps_nobody() {
    let ground = Ground::new();
    let daemon = ground
        .daemon_with(&["admin.watch=false"], |c| {
            hanging(&ground, "metrics.jsonl").preload(c);
        })
        .ready();
    assert_eq!(daemon.json("GET", "/api/v1/history").0, 200);
    fs::write(ground.path("flag"), "").unwrap();
    let (asked, began) = (daemon.address, Instant::now());
    let hung = std::thread::spawn(move || request(asked, "GET", "/api/v1/history", &format!("Host: {asked}\r\n")));
    std::thread::sleep(Duration::from_secs(4));
    for path in ["/metrics", "/api/v1/status", "/api/v1/pipeline", "/", "/-/ready"] {
        let began = Instant::now();
        assert_eq!(daemon.ask("GET", path).unwrap().0, 200, "{path}");
        assert!(began.elapsed() < Duration::from_secs(2), "{path}: {:?}", began.elapsed());
    }
    // Whoever comes next is told at once.
    for path in [
        "/api/v1/history",
        "/api/v1/events",
        "/api/v1/pictures",
        "/curves.svg",
        "/api/v1/config/text",
    ] {
        let (code, answer) = daemon.json("GET", path);
        assert_eq!(code, 503, "{path}: {answer}");
        assert!(
            answer["error"].as_str().unwrap().contains("has not answered for"),
            "{path}: {answer}"
        );
    }
    assert_eq!(daemon.json("POST", "/-/reload").0, 200, "the config file is on another disk");
    assert_eq!(hung.join().unwrap().unwrap().0, 503);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
}

#[test]
fn what_is_no_config_file_is_refused_in_words() {
    let ground = Ground::new();
    let mut daemon = ground.daemon(&["admin.watch=false"]).ready();
    let path = ground.path("c.toml");
    let fifo = || assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let table: [(&dyn Fn(), &str); 4] = [
        (&fifo, "it is a pipe"),
        (&|| fs::create_dir(&path).unwrap(), "it is a folder"),
        (&|| fs::write(&path, "# a comment\n".repeat(1 << 17)).unwrap(), "larger than 1 MiB"),
        (&|| std::os::unix::fs::symlink("/dev/zero", &path).unwrap(), "it is a device"),
    ];
    for (make, words) in table {
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        make();
        let began = Instant::now();
        let (code, report) = daemon.json("POST", "/-/reload");
        assert_eq!(code, 422, "{report}");
        assert!(report["error"].as_str().unwrap().contains(words), "{report}");
        daemon.signal("HUP");
        daemon.until("the signal is answered", |d| d.log().matches(words).count() >= 2);
        assert!(began.elapsed() < Duration::from_secs(5), "{words}: {:?}", began.elapsed());
        // As the file of a start.
        let (code, said) = ground.refused(&[&format!("run.dir=\"{}\"", ground.path("other").display())]);
        assert!(code == 64 && said.contains(words), "{code} {said}");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
}

#[test]
fn a_run_folder_that_vanishes_ends_the_run_before_another_shares_it() {
    let vanish: [(&str, fn(&Ground)); 4] = [
        ("renamed", |g| fs::rename(g.path("run"), g.path("moved")).unwrap()),
        ("replaced", |g| {
            fs::rename(g.path("run"), g.path("moved")).unwrap();
            fs::create_dir(g.path("run")).unwrap();
        }),
        ("deleted", |g| {
            fs::rename(g.path("run"), g.path("moved"))
                .and_then(|()| fs::remove_dir_all(g.path("moved")))
                .unwrap();
        }),
        ("without its lock", |g| fs::remove_file(g.path("run/daemon.lock")).unwrap()),
    ];
    for (how, act) in vanish {
        let ground = Ground::new();
        let daemon = ground.daemon(&[]).ready();
        act(&ground);
        assert_eq!(daemon.end(), 74, "{how}: {}", ground.read("log"));
        let log = ground.read("log");
        assert!(log.contains("the run folder was renamed, deleted or replaced"), "{how}: {log}");
        if how != "without its lock" {
            assert!(files(&ground.path("run")).is_empty(), "{how}: something was written in its place");
        }
    }
}

#[test]
fn clients_that_never_read_or_never_ask_keep_nobody_out() {
    let ground = Ground::new();
    let daemon = ground.daemon(&[]).ready();
    let quick = |what: &str| {
        for path in ["/-/healthy", "/metrics", "/-/ready", "/api/v1/status"] {
            let began = Instant::now();
            assert_eq!(
                daemon.ask("GET", path).unwrap_or_else(|| panic!("{what}: {path}: no answer")).0,
                200
            );
            assert!(
                began.elapsed() < Duration::from_secs(3),
                "{what}: {path} took {:?}",
                began.elapsed()
            );
        }
    };
    let ask = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", daemon.address).repeat(2000);
    let deaf: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(daemon.address).unwrap();
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(ask.as_bytes());
            stream
        })
        .collect();
    quick("deaf");
    let mut slow = Vec::new();
    for _ in 0..600 {
        // More than the kernel's queue takes are refused or left waiting, and that is their own loss.
        if let Ok(mut stream) = TcpStream::connect_timeout(&daemon.address, Duration::from_millis(200)) {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ");
            slow.push(stream);
        }
    }
    assert!(slow.len() > 300, "only {} could connect", slow.len());
    quick("slow");
    drop((deaf, slow));
    quick("gone");
    let (code, _) = request(
        daemon.address,
        "POST",
        "/-/reload",
        &format!("Host: {}\r\nContent-Length: 70000\r\n", daemon.address),
    )
    .unwrap();
    assert_eq!(code, 413);
}

#[test]
fn many_scrapes_at_once_are_all_answered() {
    let ground = Ground::new();
    let daemon = ground.daemon(&[]).ready();
    let address = daemon.address;
    let answered: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..300)
            .map(|_| {
                scope.spawn(move || usize::from(request(address, "GET", "/metrics", "Host: any\r\n").is_some_and(|(code, _)| code == 200)))
            })
            .collect();
        clients.into_iter().map(|c| c.join().unwrap()).sum()
    });
    assert_eq!(answered, 300);
}
