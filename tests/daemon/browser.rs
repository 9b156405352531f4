//! Chromium without a window, steered by the DevTools protocol over two pipes (`--remote-debugging-pipe`): messages are JSON, each followed by a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest time for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(40);

/// A page of a browser of its own.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    number: u64,
    /// What the page's console shows as an error, and exceptions that nobody caught.
    pub(crate) errors: Vec<String>,
    /// Addresses that the page asked for.
    pub(crate) requests: Vec<String>,
}

impl Browser {
    /// Starts Chromium with an empty profile in `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        // The pipes are its descriptors 3 and 4, which a shell sets up.
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>\"$CHROMIUM_LOG\"",
                "chromium",
            ])
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--hide-scrollbars", "--force-color-profile=srgb", "--window-size=1280,900"])
            .arg(format!("--user-data-dir={}", folder.join("chromium").display()))
            .env("CHROMIUM_LOG", folder.join("chromium.log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let there = Command::new("chromium").arg("--version").output().is_ok_and(|o| o.status.success());
        assert!(
            there,
            "chromium is not there: `setup/setup.sh browser`, or apt-get install chromium"
        );
        let mut child = command.spawn().expect("a shell is needed");
        let (commands, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (tell, messages) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while answers.read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
                bytes.pop();
                let message = serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&bytes)));
                if tell.send(message).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            session: String::new(),
            number: 0,
            errors: Vec::new(),
            requests: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol and waits for its answer.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method });
        message["params"] = parameters;
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.commands
            .write_all(format!("{message}\0").as_bytes())
            .expect("Chromium listens");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("{method}: no answer of Chromium"),
                Err(RecvTimeoutError::Disconnected) => panic!("{method}: Chromium has ended: {:?}", self.child.try_wait()),
            };
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let about = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.errors.push(about["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if about["type"] == "error" || about["type"] == "assert" => {
                self.errors.push(about["args"].to_string());
            }
            Some("Log.entryAdded") if about["entry"]["level"] == "error" => {
                self.errors.push(format!(
                    "{} {}",
                    about["entry"]["text"].as_str().unwrap_or_default(),
                    about["entry"]["url"].as_str().unwrap_or_default()
                ));
            }
            Some("Network.requestWillBeSent") => self.requests.push(about["request"]["url"].as_str().unwrap_or_default().to_owned()),
            _ => {}
        }
    }

    /// The value of an expression in the page; of a promise, what it resolves to.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true }),
        );
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// The text of the first element that a selector finds; empty where there is none.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let found = self.value(&format!("document.querySelector({})?.textContent ?? ''", json!(selector)));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub(crate) fn until(&mut self, what: &str, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(&format!("Boolean({expression})")) != true {
            let now = self.value("document.body?.innerText ?? ''");
            assert!(
                Instant::now() < deadline,
                "waited too long until {what}; errors {:?}; the page says:\n{}",
                self.errors,
                now.as_str().unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Goes to an address and waits until the page has shown every answer once.
    pub(crate) fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": "about:blank" }));
        self.until("the old page is gone", "location.href === 'about:blank'");
        self.call("Page.navigate", json!({ "url": address }));
        self.until("the page is there", "document.documentElement?.hasAttribute('data-ready')");
    }

    /// Clicks the button of an id.
    pub(crate) fn click(&mut self, id: &str) {
        self.value(&format!("document.getElementById({}).click()", json!(id)));
    }

    /// Presses a key where the focus is.
    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "code": key }));
        }
    }

    /// Looks as on a screen of this size.
    pub(crate) fn screen(&mut self, width: u32, height: u32, mobile: bool) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile }),
        );
    }

    /// Prefers a colour scheme.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
