//! The wheel in a fresh environment, and the tarball.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{SOURCE, SPLITMASK, cache, done, names, said};

/// Makes a package of the program under test in `out` and answers its file.
pub(super) fn package(kind: &str, out: &Path) -> PathBuf {
    done(Command::new(Path::new(SOURCE).join("setup/package.sh")).args([kind, out.to_str().unwrap(), SPLITMASK]));
    let [one] = &names(out)[..] else { panic!("one package") };
    out.join(one)
}

/// A command as a user types it: without what helps to build, and with nothing on PATH but `path`.
fn typed(program: impl AsRef<Path>, path: &str) -> Command {
    let mut command = Command::new(program.as_ref());
    for name in ["LIBTORCH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH"] {
        command.env_remove(name);
    }
    command.env("PATH", path);
    command
}

/// An environment without pip of its own; the pip that is here works on it.
pub(super) struct Environment {
    pub(super) folder: PathBuf,
    packages: PathBuf,
}

impl Environment {
    pub(super) fn make(folder: PathBuf) -> Self {
        done(Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&folder));
        let python = names(&folder.join("lib")).into_iter().find(|n| n.starts_with("python3")).unwrap();
        let packages = folder.join("lib").join(python).join("site-packages");
        Self { folder, packages }
    }

    fn pip(&self, arguments: &[&str]) {
        let python = self.folder.join("bin/python");
        done(
            Command::new("python3")
                .args(["-m", "pip", "--disable-pip-version-check", "--python"])
                .arg(python)
                .args(arguments),
        );
    }

    fn splitmask(&self) -> PathBuf {
        self.folder.join("bin/splitmask")
    }

    /// Lays torch into it as pip does, from the wheels of `make setup`. They are of one version of Python, which does not matter here: only
    /// the place of the libraries does. Where `make setup` has not fetched them, since LIBTORCH was set, its libraries are linked.
    pub(super) fn add_torch(&self) {
        let downloads = cache().join("downloads");
        let wheels: Vec<PathBuf> = fs::read_dir(&downloads)
            .map(|entries| entries.map(|e| e.unwrap().path()).collect())
            .unwrap_or_default();
        let wheels: Vec<&Path> = wheels
            .iter()
            .map(PathBuf::as_path)
            .filter(|w| {
                ["torch-2.11", "nvidia_cuda"]
                    .iter()
                    .any(|head| w.file_name().unwrap().to_string_lossy().starts_with(head))
            })
            .collect();
        if wheels.len() == 3 {
            let mut pip = Command::new("python3");
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-index",
                "--no-deps",
                "--no-compile",
            ])
            .args([
                "--only-binary=:all:",
                "--implementation=cp",
                "--python-version=3.11",
                "--abi=cp311",
                "--abi=none",
            ])
            .args((5..=28).map(|minor| format!("--platform=manylinux_2_{minor}_x86_64")))
            .arg("--platform=manylinux2014_x86_64")
            .arg("--target")
            .arg(&self.packages)
            .args(wheels);
            done(&mut pip);
        } else {
            eprintln!(
                "no wheels of torch in {}: LIBTORCH's libraries are linked instead",
                downloads.display()
            );
            let libtorch = fs::canonicalize(std::env::var_os("LIBTORCH").expect("LIBTORCH, which cargo sets")).unwrap();
            self.pretend_torch("2.11.0");
            fs::remove_dir_all(self.packages.join("torch/lib")).unwrap();
            std::os::unix::fs::symlink(libtorch.join("lib"), self.packages.join("torch/lib")).unwrap();
        }
    }

    /// A package torch with nothing in it.
    fn pretend_torch(&self, version: &str) {
        let torch = self.packages.join("torch");
        fs::create_dir_all(torch.join("lib")).unwrap();
        fs::write(torch.join("lib/libtorch_cpu.so"), "").unwrap();
        fs::write(torch.join("version.py"), format!("__version__ = '{version}'\n")).unwrap();
    }
}

fn refused(output: &Output, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(64), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in\n{said}");
    }
}

#[test]
fn a_wheel_in_a_fresh_environment_packs_trains_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let wheel = package("wheel", &dir.path().join("dist"));
    let name = wheel.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("splitmask-") && name.contains("-py3-none-manylinux_2_"), "{name}");
    let venv = Environment::make(dir.path().join("venv"));
    venv.pip(&["install", "--quiet", "--no-index", "--no-deps", wheel.to_str().unwrap()]);
    let version = done(Command::new(venv.folder.join("bin/python")).args([
        "-c",
        "import importlib.metadata as m; print(m.version('splitmask'), m.requires('splitmask'))",
    ]));
    assert_eq!(version.trim(), format!("{} ['torch==2.11.*']", env!("CARGO_PKG_VERSION")));

    // Without torch, and with one that does not fit, it says so; nothing else is on PATH that could have one.
    let nothing = dir.path().to_str().unwrap();
    let start = |path: &str| typed(venv.splitmask(), path).arg("--version").output().unwrap();
    let missing = start(nothing);
    refused(
        &missing,
        &[
            "needs libtorch 2.11",
            "pip install 'torch==2.11.*'",
            "bin/python3 has no package torch",
        ],
    );
    venv.pretend_torch("2.10.0+cu128");
    refused(
        &start(nothing),
        &["site-packages/torch is of version 2.10.0+cu128", "pip install 'torch==2.11.*'"],
    );
    fs::remove_dir_all(venv.packages.join("torch")).unwrap();

    venv.add_torch();
    let path = format!("{}:/usr/bin:/bin", venv.folder.join("bin").display());
    let run = |arguments: &[&str]| done(typed("splitmask", &path).args(arguments).current_dir(dir.path()));
    // A shell finds it on PATH, and its libtorch is the environment's, not the one that it was built against.
    let doctor = done(typed("sh", &path).args(["-c", "splitmask doctor"]));
    let libtorch = doctor.lines().find(|l| l.contains("libtorch")).unwrap();
    assert!(libtorch.starts_with("ok") && libtorch.contains("venv/lib"), "{doctor}");
    assert!(!doctor.contains("prometheus"), "advice for those who build:\n{doctor}");
    assert!(run(&["configs", "demo"]).contains("venv/share/splitmask/configs/demo.toml"));
    for inside in [
        "share/splitmask/dashboards/grafana/splitmask.json",
        "share/splitmask/deploy/systemd/splitmask@.service",
        "share/man/man1/splitmask-train.1",
        "share/bash-completion/completions/splitmask",
        "share/doc/splitmask/THIRD-PARTY-LICENCES.txt",
    ] {
        assert!(venv.folder.join(inside).metadata().is_ok_and(|m| m.len() > 500), "{inside}");
    }
    first_steps(&run, dir.path());

    venv.pip(&["uninstall", "--quiet", "--yes", "splitmask"]);
    assert!(!venv.splitmask().exists() && !venv.folder.join("libexec/splitmask/splitmask").exists());
}

/// The README's path in small: pictures, shards, codebook, training, report.
fn first_steps(run: &dyn Fn(&[&str]) -> String, dir: &Path) {
    for class in ["rows", "columns"] {
        fs::create_dir_all(dir.join("pictures").join(class)).unwrap();
        for i in 0..24u32 {
            let stripe = |x: u32, y: u32| if class == "rows" { y } else { x };
            let picture = image::RgbImage::from_fn(40, 40, |x, y| {
                image::Rgb([(stripe(x, y) * (i + 3) % 256) as u8, (x + y) as u8, (i * 10) as u8])
            });
            picture.save(dir.join(format!("pictures/{class}/{i}.png"))).unwrap();
        }
    }
    run(&["pack", "pictures", "data"]);
    run(&[
        "codebook",
        "data/train",
        "--out",
        "words.safetensors",
        "--kind",
        "random-patches",
        "--words",
        "16",
        "--image",
        "32",
        "--patch",
        "8",
        "--pixels",
        "raw",
    ]);
    let recipe = run(&["configs", "demo"]);
    let mut arguments = vec!["train", "--config", recipe.trim()];
    for set in [
        "run.dir=run",
        "data.train=data/train",
        "data.val=",
        "codebook.path=words.safetensors",
        "model.image=32",
        "train.batch=8",
        "train.precision=f32",
        "optim.warmup_steps=1",
        "optim.total_steps=3",
        "log.every_steps=1",
        "admin.bind=",
    ] {
        arguments.extend(["--set", set]);
    }
    run(&arguments);
    let trace = fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap();
    assert_eq!(trace.lines().filter(|l| l.contains("\"total\"")).count(), 3, "{trace}");
    assert!(run(&["report", "run", "--no-knn"]).contains("3"));
}

#[test]
fn a_tarball_runs_where_it_was_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let tarball = package("dist", &dir.path().join("dist"));
    done(Command::new("tar").arg("-xzf").arg(&tarball).arg("-C").arg(dir.path()));
    let root = dir
        .path()
        .join(tarball.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap());

    let program = root.join("bin/splitmask");
    let nothing = dir.path().to_str().unwrap();
    refused(
        &typed(&program, nothing).arg("doctor").output().unwrap(),
        &["needs libtorch 2.11", "set LIBTORCH to the folder"],
    );
    let libtorch = fs::canonicalize(std::env::var_os("LIBTORCH").expect("LIBTORCH, which cargo sets")).unwrap();
    let doctor = done(typed(&program, nothing).env("LIBTORCH", &libtorch).arg("doctor"));
    assert!(doctor.contains(&format!("{}/lib/libtorch_cpu.so", libtorch.display())), "{doctor}");
    // An environment that is activated lends its torch; a link on PATH leads to the whole.
    let venv = Environment::make(dir.path().join("venv"));
    venv.pretend_torch("2.11.0");
    fs::remove_dir_all(venv.packages.join("torch/lib")).unwrap();
    std::os::unix::fs::symlink(libtorch.join("lib"), venv.packages.join("torch/lib")).unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(&program, dir.path().join("bin/splitmask")).unwrap();
    let list = done(
        typed(dir.path().join("bin/splitmask"), nothing)
            .env("VIRTUAL_ENV", &venv.folder)
            .arg("configs"),
    );
    assert!(list.contains("small-data") && list.contains("share/splitmask/dashboards"), "{list}");

    // No link of the README leads nowhere.
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let links: Vec<&str> = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|l| !l.contains("://"))
        .collect();
    assert!(links.len() > 10, "{links:?}");
    for link in links {
        let file = link.split('#').next().unwrap_or(link);
        assert!(root.join(file).exists(), "README.md links to {link}, which the tarball has not");
    }
    for file in [
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "CHANGELOG.md",
        "deploy/systemd/splitmask@.service",
        "dashboards/prometheus/alerts.yml",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
}
