//! A real Prometheus on a free port of the loopback, and its command-line tool.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::files;

/// Runs `promtool`, optionally with text on its standard input.
pub(crate) fn promtool(args: &[&str], stdin: Option<&str>) -> Output {
    let mut child = spawn(
        Command::new("promtool")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let mut pipe = child.stdin.take().expect("piped");
    pipe.write_all(stdin.unwrap_or_default().as_bytes())
        .expect("promtool reads its input");
    drop(pipe);
    child.wait_with_output().expect("promtool ends")
}

fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|e| {
        panic!(
            "{:?} cannot be started: {e}\nhint: it is in the Debian package `prometheus`: setup/setup.sh system",
            command.get_program()
        )
    })
}

/// A running server that scrapes one target every second; it ends with this value.
pub(crate) struct Prometheus {
    process: Child,
    address: String,
    folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Starts it with the repository's own config, but for the target and the intervals.
    pub(crate) fn scraping(target: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut config = files::text("dashboards/prometheus/prometheus.yml");
        let rules = files::path("dashboards/prometheus/alerts.yml");
        for (from, to) in [
            ("127.0.0.1:9464", target),
            ("scrape_interval: 5s", "scrape_interval: 1s"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ("- alerts.yml", &format!("- {}", rules.display())),
        ] {
            assert!(config.contains(from), "prometheus.yml no longer says {from:?}");
            config = config.replace(from, to);
        }
        fs::write(folder.path().join("prometheus.yml"), config).expect("a config");
        // Another process may take the free port before Prometheus does.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")
                .and_then(|l| l.local_addr())
                .expect("a free port")
                .port();
            let address = format!("127.0.0.1:{port}");
            let mut process = spawn(&mut command(folder.path(), &address));
            if ready(&mut process, &address) {
                return Self { process, address, folder };
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("Prometheus did not start: {}", log(folder.path()));
    }

    /// Answers an API call's `data`.
    pub(crate) fn api(&self, call: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let query: Vec<String> = parameters.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let body =
            get(&self.address, &format!("/api/v1/{call}?{}", query.join("&"))).map_err(|e| format!("{e}: {}", log(self.folder.path())))?;
        let mut answer: Value = serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))?;
        if answer["status"] == "success" {
            Ok(answer["data"].take())
        } else {
            Err(format!("{}", answer["error"]))
        }
    }

    /// All sample values that a query answers now (`instant`), or over the last ten seconds.
    pub(crate) fn values(&self, expr: &str, instant: bool) -> Result<Vec<f64>, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let data = if instant {
            self.api("query", &[("query", expr)])?
        } else {
            self.api(
                "query_range",
                &[
                    ("query", expr),
                    ("start", &(now - 10.0).to_string()),
                    ("end", &now.to_string()),
                    ("step", "1"),
                ],
            )?
        };
        let mut values = Vec::new();
        for series in files::list(&data, "/result") {
            let one = series.get("value").into_iter();
            let samples = one.chain(series.get("values").and_then(Value::as_array).into_iter().flatten());
            values.extend(samples.filter_map(|s| s[1].as_str()?.parse::<f64>().ok()));
        }
        Ok(values)
    }
}

fn command(folder: &Path, address: &str) -> Command {
    let log = File::create(folder.join("log")).expect("a log file");
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--log.level=warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// Waits up to a minute for `/-/ready`; false as soon as the process has ended.
fn ready(process: &mut Child, address: &str) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        if process.try_wait().expect("our child").is_some() {
            return false;
        }
        if get(address, "/-/ready").is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Body of a GET; HTTP/1.0, so that the answer ends with the connection.
pub(crate) fn get(address: &str, path: &str) -> Result<String, String> {
    let answer = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    let text: String = answer().map_err(|e: std::io::Error| format!("http://{address}{path}: {e}"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP answer: {text:?}"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    // Prometheus answers a bad query with 400 or 422 and says why in the body's JSON.
    if status == "200" || body.starts_with('{') {
        Ok(body.to_owned())
    } else {
        Err(format!("http://{address}{path}: {head}"))
    }
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
