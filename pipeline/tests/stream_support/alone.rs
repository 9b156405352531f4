//! Tests that need a process of their own: an environment that is not the other tests', or threads that nobody else starts.

use std::process::Command;

/// What tells the process that it is the second one.
const ALONE: &str = "STREAM_TEST_ALONE";

/// Runs the test of this name again in a process with this environment; true in that process. The first one asserts that it passed and printed none of
/// `secrets`.
pub(crate) fn alone(test: &str, environment: &[(&str, &str)], secrets: &[&str]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env_remove("AWS_ENDPOINT")
        .env(ALONE, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    for secret in secrets {
        assert!(!text.contains(secret), "a secret is shown: {text}");
    }
    false
}
