//! The Dockerfile, as far as it can be tried without a container engine.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use super::packages::{Environment, package};
use super::{cache, done, file, said};

/// hadolint, which also reads the shell in it, finds nothing to say; in a spoilt one it does.
#[test]
fn a_linter_of_dockerfiles_finds_nothing_and_what_is_spoilt_is_found() {
    let hadolint = cache().join("deploy/bin/hadolint");
    assert!(hadolint.is_file(), "hadolint is missing; `make setup` fetches it");
    let linted = |path: &Path| -> Output { Command::new(&hadolint).arg("--no-color").arg(path).output().unwrap() };
    let right = linted(&file("Dockerfile"));
    assert!(right.status.success() && said(&right).is_empty(), "{}", said(&right));
    let dir = tempfile::tempdir().unwrap();
    for (from, to, rule) in [
        ("FROM python:3.12-slim-bookworm", "FROM python", "DL3006"),
        ("[ -n \"$TORCH_INDEX\" ]", "[ -n $TORCH_INDEX ]", "SC2070"),
    ] {
        let whole = fs::read_to_string(file("Dockerfile")).unwrap();
        assert!(whole.contains(from), "there is no {from:?}");
        let spoilt = dir.path().join("Dockerfile");
        fs::write(&spoilt, whole.replace(from, to)).unwrap();
        let answer = linted(&spoilt);
        assert!(
            !answer.status.success() && said(&answer).contains(rule),
            "{rule}: {}",
            said(&answer)
        );
    }
}

/// An index with one package, torch 2.11.99, which holds nothing.
const INDEX: &str = r#"
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1], "torch")
folder.mkdir()
wheel, info = "torch-2.11.99-py3-none-any.whl", "torch-2.11.99.dist-info/"
with zipfile.ZipFile(folder / wheel, "w") as archive:
    archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.11.99\n")
    archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    archive.writestr(info + "RECORD", "")
(folder / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
"#;

/// Of the step that makes the image, the line that asks `TORCH_INDEX` for torch; without one it does nothing, and the wheel asks pip's own index.
#[test]
fn the_image_takes_torch_from_the_index_that_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    done(Command::new("python3").args(["-B", "-c", INDEX]).arg(dir.path()));
    let environment = Environment::make(dir.path().join("venv"));
    let python = environment.folder.join("bin/python");
    let dockerfile = fs::read_to_string(file("Dockerfile")).unwrap();
    let line = dockerfile.lines().find(|line| line.contains("$TORCH_INDEX\" pip install")).unwrap();
    let script = format!(
        "pip() {{ python3 -m pip --disable-pip-version-check --python {} \"$@\"; }}\n{}",
        python.display(),
        line.trim_end_matches('\\')
    );
    for (index, want) in [
        (String::new(), "[]"),
        (format!("file://{}", dir.path().display()), "['torch 2.11.99']"),
    ] {
        done(Command::new("bash").args(["-c", &script]).env("TORCH_INDEX", index));
        let list = "import importlib.metadata as m; print([f'{d.name} {d.version}' for d in m.distributions()])";
        assert_eq!(done(Command::new(&python).args(["-c", list])).trim(), want);
    }
}

/// Answers one request on a port of its own.
fn answering(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 4096];
        let n = stream.read(&mut asked).unwrap();
        let found = String::from_utf8_lossy(&asked[..n]).starts_with("GET /-/healthy ");
        let status = if found { status } else { "404 Not Found" };
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    port
}

/// There is no container engine here: the steps of the image are taken in a folder, with a Python environment that holds torch already.
#[test]
fn the_steps_of_the_image_give_a_program_that_starts() {
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().join("context");
    fs::create_dir_all(context.join("deploy/image")).unwrap();
    fs::create_dir(context.join("dist")).unwrap();
    fs::copy(file("Dockerfile"), context.join("Dockerfile")).unwrap();
    fs::copy(file("deploy/image/stop-and-wait"), context.join("deploy/image/stop-and-wait")).unwrap();
    package("wheel", &context.join("dist"));
    let environment = Environment::make(dir.path().join("venv"));
    environment.add_torch();
    let root = dir.path().join("root");
    let image = done(
        Command::new("python3")
            .arg("-B")
            .arg(file("setup/image_steps.py"))
            .args([&context, &root, &environment.folder])
            .envs([("PIP_NO_DEPS", "1"), ("PIP_NO_INDEX", "1")])
            .env_remove("PIP_EXTRA_INDEX_URL"),
    );
    let image: serde_json::Value = serde_json::from_str(&image).unwrap();
    assert_eq!(image["user"], "10001:10001");
    assert!(image["users"][0].as_str().unwrap().contains("--uid 10001"));
    assert_eq!(image["exposed"], serde_json::json!([9464]));
    assert_eq!(image["entrypoint"], serde_json::json!(["splitmask"]));
    assert!(root.join("usr/local/bin/stop-and-wait").is_file() && root.join("runs").is_dir());
    assert!(!root.join("tmp/wheel").exists(), "the wheel does not stay");

    let help = done(
        Command::new(environment.folder.join("bin/splitmask"))
            .arg("--help")
            .env_remove("LD_LIBRARY_PATH"),
    );
    assert!(help.contains("train"), "{help}");
    // What the image says of its health is what the daemon says.
    let command: Vec<String> = serde_json::from_value(image["healthcheck"]["command"].clone()).unwrap();
    for (status, well) in [("200 OK", true), ("503 Service Unavailable", false)] {
        let port = answering(status).to_string();
        let arguments = command[1..].iter().map(|part| part.replace("9464", &port));
        let asked = Command::new(&command[0]).args(arguments).output().unwrap();
        assert_eq!(asked.status.success(), well, "{status}: {}", said(&asked));
    }
}
