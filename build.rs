//! Makes the binaries and tests of this package find libtorch where the build found it.
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(dir) = std::env::var_os("LIBTORCH") {
        let lib = PathBuf::from(dir).join("lib");
        let lib = lib.canonicalize().unwrap_or(lib);
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    // The commit in `splitmask --version` and `splitmask_build_info`; a source archive has none.
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").arg("rev-parse").args(arguments).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let revision = git(&["--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=SPLITMASK_REVISION={revision}");
    // HEAD changes with the branch, its log with each commit. A file that is not there makes cargo compile this crate anew each time; in a second
    // worktree both lie elsewhere than in .git.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["--git-path", file]).filter(|path| PathBuf::from(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
}
