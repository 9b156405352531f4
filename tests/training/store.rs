//! Training from a real S3 server with signed requests.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ground::Ground;

/// `s3s-fs` serving a folder of buckets; stopped when dropped.
struct S3 {
    child: Child,
    endpoint: String,
}

impl S3 {
    fn start(root: &std::path::Path) -> Self {
        let cache = std::env::var_os("SPLITMASK_CACHE").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME")
                .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
            base.join("splitmask")
        });
        let binary = cache.join("bin/s3s-fs");
        assert!(
            binary.exists(),
            "{} is missing: `make setup` builds it (crate s3s-fs)",
            binary.display()
        );
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(binary)
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--access-key",
                "AKEXAMPLE",
                "--secret-key",
                "SKEXAMPLE",
            ])
            .arg(root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            child,
            endpoint: format!("http://127.0.0.1:{port}"),
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_run_from_s3_equals_the_run_from_disk() {
    let ground = Ground::new();
    // The folder `data` becomes the bucket `data`.
    let buckets = ground.path("buckets");
    std::fs::create_dir(&buckets).unwrap();
    std::fs::rename(ground.path("data"), buckets.join("data")).unwrap();
    let server = S3::start(&buckets);
    let train = |run: &str, url: &str, secret: &str| {
        let sets = [
            format!("run.dir=\"{}\"", ground.path(run).display()),
            format!("data.train=\"{url}/train\""),
            format!("data.val=\"{url}/val\""),
            format!(
                "data.endpoint=\"{}\"",
                if url.starts_with("s3") { server.endpoint.as_str() } else { "" }
            ),
            "optim.total_steps=24".to_owned(),
            "pipeline.retry_budget_s=3".to_owned(),
        ];
        let mut command = ground.train(&[]);
        for set in &sets {
            command.args(["--set", set]);
        }
        command
            .env("AWS_ACCESS_KEY_ID", "AKEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env("AWS_REGION", "us-east-1");
        command.output().unwrap()
    };
    let disk = train("disk", &buckets.join("data").display().to_string(), "unused");
    assert!(disk.status.success(), "{}", String::from_utf8_lossy(&disk.stderr));
    let s3 = train("s3", "s3://data", "SKEXAMPLE");
    assert!(s3.status.success(), "{}", String::from_utf8_lossy(&s3.stderr));
    assert_eq!(ground.trace("disk"), ground.trace("s3"));

    // A wrong secret is refused, named, and not shown.
    let refused = train("refused", "s3://data", "not-the-secret-of-this-server");
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{message}");
    assert!(!message.contains("not-the-secret"), "{message}");
}
