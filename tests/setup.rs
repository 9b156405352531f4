//! The set-up of a fresh machine, as far as it can be tried without changing this one.

use std::process::Command;

/// `make setup CUDA=1` once failed on a wheel whose platform tag was missing from a list; nobody sees that on a machine that has its libtorch.
#[test]
fn pip_finds_every_wheel_of_libtorch_with_and_without_cuda() {
    let out = Command::new("bash")
        .args(["setup/setup.sh", "resolve"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("LIBTORCH")
        .output()
        .expect("bash runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    assert!(text.contains("both sets of libtorch's wheels can be had"), "{text}");
}
