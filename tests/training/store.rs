//! Training from a real S3 server with signed requests.

use crate::ground::Ground;
use crate::servers::Server;

#[test]
fn a_run_from_s3_equals_the_run_from_disk() {
    let ground = Ground::new();
    // The folder `data` becomes the bucket `data`.
    let buckets = ground.path("buckets");
    std::fs::create_dir(&buckets).unwrap();
    std::fs::rename(ground.path("data"), buckets.join("data")).unwrap();
    let server = Server::s3(&buckets, "AKEXAMPLE", "SKEXAMPLE");
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
