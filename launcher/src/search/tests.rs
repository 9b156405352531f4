use std::fs;

use super::*;

/// A folder that looks like a libtorch of `version`.
fn torch(folder: &Path, version: &str) {
    fs::create_dir_all(folder.join("lib")).unwrap();
    fs::write(folder.join("lib/libtorch_cpu.so"), "").unwrap();
    fs::write(
        folder.join("version.py"),
        format!("from typing import Optional\n\n__all__ = ['__version__', 'debug']\n__version__ = '{version}'\n"),
    )
    .unwrap();
}

/// An interpreter that answers `answer` whatever it is asked.
///
/// Another process writes the file that is executed: were it open for writing here, a process that another test starts at that moment would hold it
/// open too, and the kernel would refuse to execute it ("Text file busy").
fn python(bin: &Path, answer: &str) {
    fs::create_dir_all(bin).unwrap();
    let source = bin.join("python3.sh");
    fs::write(&source, format!("#!/bin/sh\n{answer}\n")).unwrap();
    let installed = Command::new("install")
        .args(["-m", "755"])
        .arg(source)
        .arg(bin.join("python3"))
        .status();
    assert!(installed.unwrap().success());
}

fn at(prefix: &Path) -> Surroundings {
    Surroundings {
        prefix: Some(prefix.to_owned()),
        ..Surroundings::default()
    }
}

#[test]
fn the_usual_folders_of_environments_are_known() {
    // A venv, conda or a user install; Debian's own Python; a 64-bit folder; `pip install --target`.
    for inside in [
        "lib/python3.11/site-packages",
        "lib/python3/dist-packages",
        "lib64/python3.14/site-packages",
        ".",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(inside).join("torch");
        torch(&folder, "2.11.0+cu130");
        let found = find(&at(dir.path())).unwrap();
        assert_eq!(
            (found.folder.canonicalize().unwrap(), found.version.as_str()),
            (folder.canonicalize().unwrap(), "2.11.0+cu130"),
            "{inside}"
        );
        assert_eq!(found.libraries.len(), 1, "{inside}");
    }
}

#[test]
fn a_torch_of_another_version_is_passed_over_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let lib = dir.path().join("lib");
    torch(&lib.join("python3.13/site-packages/torch"), "2.10.0");
    torch(&lib.join("python3.9/site-packages/torch"), "2.11.1");
    assert!(find(&at(dir.path())).unwrap().folder.starts_with(lib.join("python3.9")));

    torch(&lib.join("python3.9/site-packages/torch"), "2.110.0");
    let said = find(&at(dir.path())).unwrap_err().to_string();
    assert!(said.contains("python3.13/site-packages/torch is of version 2.10.0"), "{said}");
    assert!(said.contains("python3.9/site-packages/torch is of version 2.110.0"), "{said}");
    assert!(said.contains("torch==2.11.*"), "{said}");
}

#[test]
fn of_several_that_fit_the_one_of_the_newest_python_is_taken_by_number() {
    let dir = tempfile::tempdir().unwrap();
    for minor in ["9", "14", "11"] {
        torch(&dir.path().join(format!("lib/python3.{minor}/site-packages/torch")), "2.11.0");
    }
    assert!(find(&at(dir.path())).unwrap().folder.starts_with(dir.path().join("lib/python3.14")));
}

#[test]
fn half_a_torch_is_no_torch() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("lib/python3.12/site-packages/torch");
    torch(&folder, "2.11.0");
    fs::remove_file(folder.join("lib/libtorch_cpu.so")).unwrap();
    assert!(
        find(&at(dir.path()))
            .unwrap_err()
            .to_string()
            .contains("holds no lib/libtorch_cpu.so")
    );
    torch(&folder, "2.11.0");
    fs::remove_file(folder.join("version.py")).unwrap();
    assert!(find(&at(dir.path())).unwrap_err().to_string().contains("its version is unknown"));
}

#[test]
fn libtorch_in_the_environment_is_the_only_one_asked() {
    let dir = tempfile::tempdir().unwrap();
    let installed = dir.path().join("venv");
    torch(&installed.join("lib/python3.11/site-packages/torch"), "2.11.0");
    // The archive of libtorch has no version.py.
    let own = dir.path().join("libtorch");
    torch(&own, "2.11.0");
    fs::remove_file(own.join("version.py")).unwrap();
    fs::write(own.join("build-version"), "2.11.0+cpu\n").unwrap();
    let mut surroundings = Surroundings {
        libtorch: Some(own.clone()),
        ..at(&installed)
    };
    assert_eq!(find(&surroundings).unwrap().folder, own);

    fs::write(own.join("build-version"), "2.9.1\n").unwrap();
    assert!(
        find(&surroundings)
            .unwrap_err()
            .to_string()
            .contains("libtorch is of version 2.9.1")
    );
    surroundings.libtorch = Some(dir.path().join("nowhere"));
    let said = find(&surroundings).unwrap_err().to_string();
    assert!(
        said.contains("LIBTORCH=") && said.contains("nowhere holds no lib/libtorch_cpu.so"),
        "{said}"
    );
}

#[test]
fn an_activated_environment_comes_after_the_own_one() {
    let dir = tempfile::tempdir().unwrap();
    let (own, active) = (dir.path().join("own"), dir.path().join("active"));
    fs::create_dir_all(&own).unwrap();
    torch(&active.join("lib/python3.11/site-packages/torch"), "2.11.0");
    let surroundings = Surroundings {
        active: vec![own.clone(), active.clone()],
        ..at(&own)
    };
    assert!(find(&surroundings).unwrap().folder.starts_with(&active));
    torch(&own.join("lib/python3.11/site-packages/torch"), "2.11.0");
    assert!(find(&surroundings).unwrap().folder.starts_with(&own));
}

#[test]
fn the_environments_python_knows_what_no_folder_shows() {
    // A venv that sees the system's packages.
    let dir = tempfile::tempdir().unwrap();
    let (venv, system) = (dir.path().join("venv"), dir.path().join("system/torch"));
    torch(&system, "2.11.0");
    python(&venv.join("bin"), &format!("echo {}", system.display()));
    assert_eq!(find(&at(&venv)).unwrap().folder, system);
    // A user install, whose Python is that of PATH. The first there has no torch, the second breaks.
    let (user, none, broken, good) = (
        dir.path().join("user"),
        dir.path().join("none"),
        dir.path().join("broken"),
        dir.path().join("good"),
    );
    python(&none, "echo");
    python(&broken, "echo 'no module named encodings' >&2; exit 1");
    python(&good, &format!("echo {}", system.display()));
    let surroundings = Surroundings {
        path: vec![none.clone(), broken.clone(), dir.path().join("nowhere"), good],
        ..at(&user)
    };
    assert_eq!(find(&surroundings).unwrap().folder, system);

    let surroundings = Surroundings {
        path: vec![none, broken],
        ..at(&user)
    };
    let said = find(&surroundings).unwrap_err().to_string();
    assert!(said.contains("user has no lib/python3.*/site-packages/torch"), "{said}");
    assert!(said.contains("none/python3 has no package torch"), "{said}");
    assert!(
        said.contains("broken/python3 could not be asked: no module named encodings"),
        "{said}"
    );
}

#[test]
fn a_real_python_answers_and_a_folder_of_that_name_in_the_working_directory_is_not_taken() {
    let Some(real) = std::env::var_os("PATH").and_then(|p| std::env::split_paths(&p).map(|d| d.join("python3")).find(|p| p.is_file()))
    else {
        panic!("the tests need python3 (`make setup`)");
    };
    let dir = tempfile::tempdir().unwrap();
    torch(&dir.path().join("packages/torch"), "2.11.0");
    fs::write(dir.path().join("packages/torch/__init__.py"), "raise SystemExit('imported')").unwrap();
    let asked = |from: &Path| {
        let script = format!(
            "cd {} && PYTHONPATH={} exec {} \"$@\"",
            dir.path().display(),
            from.display(),
            real.display()
        );
        python(&dir.path().join("bin"), &script);
        ask(&dir.path().join("bin/python3")).unwrap()
    };
    assert_eq!(asked(&dir.path().join("packages")), Some(dir.path().join("packages/torch")));
    torch(&dir.path().join("torch"), "2.11.0");
    let here = asked(&dir.path().join("nowhere"));
    assert!(
        here.is_none_or(|folder| !folder.starts_with(dir.path())),
        "taken from the working directory"
    );
}

#[test]
fn links_to_libraries_elsewhere_are_followed_to_where_they_look_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("lib/python3.11/site-packages/torch");
    torch(&folder, "2.11.0");
    fs::rename(folder.join("lib/libtorch_cpu.so"), dir.path().join("lib/libtorch_cpu.so")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("lib/libtorch_cpu.so"), folder.join("lib/libtorch_cpu.so")).unwrap();
    let found = find(&at(dir.path())).unwrap();
    assert_eq!(
        found.libraries,
        [folder.join("lib"), dir.path().join("lib").canonicalize().unwrap()]
    );
}

#[test]
fn the_version_asked_for_is_the_one_that_setup_fetches() {
    let versions = include_str!("../../../setup/versions.env");
    let fetched = versions.lines().find_map(|l| l.strip_prefix("LIBTORCH_VERSION=")).unwrap();
    assert!(
        fetched.starts_with(&format!("{WANTED}.")),
        "launcher: {WANTED}, setup/versions.env: {fetched}"
    );
    let wheel = include_str!("../../pyproject.toml");
    assert!(
        wheel.contains(&format!("\"torch=={WANTED}.*\"")),
        "launcher/pyproject.toml asks pip for another torch than {WANTED}"
    );
}
