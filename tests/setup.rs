//! The set-up of a fresh machine, the check of one with a GPU, as far as they can be tried without changing this one, and the crates that all is built from.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");
const SPLITMASK: &str = env!("CARGO_BIN_EXE_splitmask");

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// `make setup CUDA=1` once failed on a wheel whose platform tag was missing from a list; nobody sees that on a machine that has its libtorch.
#[test]
fn pip_finds_every_wheel_of_libtorch_with_and_without_cuda() {
    let output = Command::new("bash")
        .args(["setup/setup.sh", "resolve"])
        .current_dir(SOURCE)
        .env_remove("LIBTORCH")
        .output()
        .expect("bash runs");
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("both sets of libtorch's wheels can be had"), "{text}");
}

/// The tests against PyTorch, which cargo built beside this one.
fn parity_tests() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    let programs = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("parity-") && !name.contains('.')
    });
    let newest = programs.max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.expect("the tests against PyTorch are not built: run `cargo test --workspace`, or add `--test parity`")
}

/// Shards of drawn pictures.
fn shards(folder: &Path) -> PathBuf {
    let pictures = folder.join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for n in 0..24u32 {
        let picture = image::RgbImage::from_fn(80, 60, |x, y| image::Rgb([(x * n) as u8, (y * 3 + n) as u8, (x + y) as u8]));
        picture.save(pictures.join(format!("{n}.png"))).unwrap();
    }
    let packed = Command::new(SPLITMASK)
        .arg("pack")
        .arg(&pictures)
        .arg(folder.join("packed"))
        .output()
        .unwrap();
    assert!(packed.status.success(), "{}", said(&packed));
    folder.join("packed/train")
}

/// The check prepares its folder and runs every part on a CPU, at a size that says nothing about speed: so that on the GPU, of which there are
/// minutes, the script itself is not what fails.
#[test]
fn the_check_of_a_gpu_runs_to_its_end_on_a_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let (carried, out) = (folder.path().join("carried"), folder.path().join("out"));
    let prepared = Command::new("bash")
        .args(["setup/gpu_check.sh", "prepare"])
        .current_dir(SOURCE)
        .env("GPU_FOLDER", &carried)
        .env("PROGRAM", SPLITMASK)
        .env("PARITY", parity_tests())
        .env("PHOTOS", shards(folder.path()))
        .env("WORDS", "512")
        .output()
        .expect("bash runs");
    assert!(prepared.status.success(), "{}", said(&prepared));
    let libtorch = std::env::var_os("LIBTORCH").expect("LIBTORCH, which cargo sets");
    let checked = Command::new("bash")
        .arg(carried.join("run.sh"))
        .env("LIBTORCH", std::fs::canonicalize(libtorch).unwrap())
        .env("OUT", &out)
        .envs([("DEVICE", "cpu"), ("TINY", "1"), ("PYTHON", "python3")])
        .output()
        .expect("bash runs");
    let text = said(&checked);
    assert!(checked.status.success(), "{text}");
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("gpu_check.json")).unwrap()).unwrap();
    let part = |name: &str| &found["parts"][name]["result"];
    assert!(part("parity")["passed"].as_u64().unwrap() >= 10, "{text}");
    for part_of_a_kill in ["resume", "repeat"] {
        assert_eq!(part(part_of_a_kill)["bit_for_bit"], true, "{text}");
    }
    assert_eq!(part("ranks")["steps"], 4, "{text}");
    assert_eq!(part("words")["steps"], 4, "{text}");
    assert!(
        part("graph")["log"][0].as_str().unwrap().contains("it does not train on a GPU"),
        "{text}"
    );
    assert!(part("steps")[0]["graph"]["ms"].as_f64().unwrap() > 0.0, "{text}");
    assert!(part("pipeline")["images_per_second"]["batch"].as_f64().unwrap() > 0.0, "{text}");
    assert!(part("steps")[0]["ours"]["ms"].as_f64().unwrap() > 0.0, "{text}");
    assert!(part("steps")[0]["calls"]["calls"].as_f64().unwrap() > 100.0, "{text}");
    assert!(part("run")["images_per_second"].as_f64().unwrap() > 0.0, "{text}");
    for gpu_only in ["memory", "largest"] {
        assert!(found["parts"][gpu_only]["skipped"].is_string(), "{text}");
    }
    assert!(
        std::fs::read_to_string(out.join("gpu_check.txt")).unwrap().contains("resume"),
        "{text}"
    );
}

/// A folder with the check's own scripts.
fn check_alone() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["run.sh", "check.py"] {
        std::fs::copy(Path::new(SOURCE).join("setup/gpu").join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("commit"), "none\n").unwrap();
    folder
}

/// Writes a file that is executed later. Another process does it: see `install_program` of tests/installation.
fn write_program(path: &Path, text: &str) {
    let source = path.with_extension("text");
    std::fs::write(&source, text).unwrap();
    assert!(Command::new("cp").arg(source).arg(path).status().unwrap().success());
}

/// A program that hangs is ended when the time is over, with the programs that it began.
#[test]
fn a_check_ends_with_its_time_and_leaves_nothing_behind() {
    let folder = check_alone();
    let length = format!("61.{}", std::process::id());
    write_program(&folder.path().join("parity"), "#!/bin/sh\nexit 3\n");
    write_program(
        &folder.path().join("splitmask"),
        &format!("#!/bin/sh\n[ $1 = bench ] || exit 0\nsleep {length} &\nsleep {length}\n"),
    );
    let began = std::time::Instant::now();
    let checked = Command::new("bash")
        .arg(folder.path().join("run.sh"))
        .env("LIBTORCH", folder.path())
        .envs([("DEVICE", "cpu"), ("TINY", "1"), ("PYTHON", "python3"), ("BUDGET", "10")])
        .env_remove("OUT")
        .output()
        .expect("bash runs");
    assert!(began.elapsed().as_secs() < 40, "{:?}\n{}", began.elapsed(), said(&checked));
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("out/gpu_check.json")).unwrap()).unwrap();
    let text = said(&checked);
    assert!(found["parts"]["steps"]["error"].as_str().unwrap().contains("timed out"), "{text}");
    assert_eq!(found["parts"]["largest"]["skipped"], "the 10 s were over", "{text}");
    let left = Command::new("pgrep").args(["-f", &format!("sleep {length}")]).output();
    let left = left.expect("pgrep is needed: make setup, or apt-get install procps");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "{text}");
}

/// What breaks costs its own part alone.
#[test]
fn a_part_that_breaks_is_told_and_the_others_go_on() {
    let folder = check_alone();
    for program in ["splitmask", "parity"] {
        write_program(&folder.path().join(program), "#!/bin/sh\necho broken >&2\nexit 3\n");
    }
    let checked = Command::new("bash")
        .arg(folder.path().join("run.sh"))
        .env("LIBTORCH", folder.path())
        .envs([("DEVICE", "cpu"), ("TINY", "1"), ("PYTHON", "python3")])
        .env_remove("OUT")
        .output()
        .expect("bash runs");
    let text = said(&checked);
    assert_eq!(checked.status.code(), Some(1), "{text}");
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("out/gpu_check.json")).unwrap()).unwrap();
    assert_eq!(found["parts"]["machine"]["result"]["commit"], "none", "{text}");
    for part in [
        "doctor",
        "parity",
        "precision",
        "resume",
        "repeat",
        "ranks",
        "pipeline",
        "steps",
        "run",
    ] {
        assert!(found["parts"][part]["error"].is_string(), "{part}: {text}");
    }
    assert!(text.contains("WRONG") && text.contains("ended with 3"), "{text}");
}

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What is wrong with the crates of a lock file: `banned` ones, and those that could be replaced without notice.
fn supply_faults(lock: &str, banned: &[String]) -> Vec<String> {
    let lock: toml::Table = toml::from_str(lock).unwrap();
    let mut found = Vec::new();
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let text = |key: &str| package.get(key).and_then(|v| v.as_str());
        match text("source") {
            // A member of this workspace.
            None => {}
            Some(REGISTRY) if text("checksum").is_some_and(|sum| sum.len() == 64) => {}
            Some(REGISTRY) => found.push(format!("{name}: no checksum")),
            Some(other) => found.push(format!("{name}: from {other}")),
        }
        if banned.iter().any(|b| b == name) {
            found.push(format!("{name}: banned by deny.toml"));
        }
    }
    found
}

/// `make lint` lets cargo-deny judge licences and sources too, `make advisories` known vulnerabilities.
#[test]
fn every_crate_is_the_registrys_with_a_checksum_and_none_is_banned() {
    let read = |name: &str| std::fs::read_to_string(Path::new(SOURCE).join(name)).unwrap();
    let deny: toml::Table = toml::from_str(&read("deny.toml")).unwrap();
    let bans = deny["bans"]["deny"].as_array().unwrap();
    let banned: Vec<String> = bans.iter().map(|b| b["crate"].as_str().unwrap().to_owned()).collect();
    for name in ["tokio-tar", "async-tar"] {
        assert!(banned.iter().any(|b| b == name), "{name} may come back");
    }
    assert_eq!(deny["sources"]["unknown-registry"].as_str(), Some("deny"));
    assert_eq!(deny["sources"]["unknown-git"].as_str(), Some("deny"));
    assert_eq!(supply_faults(&read("Cargo.lock"), &banned), Vec::<String>::new());

    // Planted ones are found.
    let sum = "0".repeat(64);
    let planted = format!(
        "[[package]]\nname = \"ours\"\nversion = \"1.0.0\"\n\
         [[package]]\nname = \"good\"\nversion = \"1.0.0\"\nsource = \"{REGISTRY}\"\nchecksum = \"{sum}\"\n\
         [[package]]\nname = \"unsummed\"\nversion = \"1.0.0\"\nsource = \"{REGISTRY}\"\n\
         [[package]]\nname = \"forked\"\nversion = \"1.0.0\"\nsource = \"git+https://example.com/forked#1\"\n\
         [[package]]\nname = \"tokio-tar\"\nversion = \"1.0.0\"\nsource = \"{REGISTRY}\"\nchecksum = \"{sum}\"\n"
    );
    let found = supply_faults(&planted, &banned);
    assert_eq!(found.len(), 3, "{found:?}");
}
