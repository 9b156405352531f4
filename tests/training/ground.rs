//! A tiny dataset, codebook and config in a temporary folder, and a daemon process on it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "time_limit.rs"]
mod time_limit;

use crate::free_port::free_port;

/// A folder with packed shards, a codebook and a config.
pub(crate) struct Ground {
    pub(crate) dir: tempfile::TempDir,
}

/// The binary under test, which runs for [`time_limit::limit`] at the most.
pub(crate) fn splitmask() -> Command {
    time_limit::watch();
    let mut command = Command::new(env!("CARGO_BIN_EXE_splitmask"));
    command.env_remove("RUST_LOG");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Ground {
    /// 160 drawn images in four folders, packed into several shards.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ground = Self { dir };
        for class in 0..4u32 {
            let folder = ground.path("images").join(format!("class{class}"));
            fs::create_dir_all(&folder).unwrap();
            for n in 0..40u32 {
                draw(class, n).save(folder.join(format!("{n:02}.png"))).unwrap();
            }
        }
        let (images, data) = (ground.path("images"), ground.path("data"));
        run(splitmask()
            .arg("pack")
            .arg(&images)
            .arg(&data)
            .args(["--val-share", "0.2", "--shard-size", "100KiB"]));
        ground.make_words(&ground.path("words.safetensors"), "0");
        fs::write(ground.config(), ground.config_text()).unwrap();
        ground
    }

    /// A codebook of the training images, drawn with this seed.
    pub(crate) fn make_words(&self, file: &Path, seed: &str) {
        run(splitmask()
            .arg("codebook")
            .arg(self.path("data/train"))
            .arg("--out")
            .arg(file)
            .args(["--kind", "random-patches", "--words", "64", "--image", "32", "--patch", "8"])
            .args(["--pixels", "raw", "--seed", seed]));
    }

    /// The same, packed with label maps: 0 = ground, then what is drawn by class.
    pub(crate) fn with_maps() -> Self {
        let ground = Self::new();
        for class in 0..4u32 {
            let folder = ground.path("maps").join(format!("class{class}"));
            fs::create_dir_all(&folder).unwrap();
            for n in 0..40u32 {
                let map = image::GrayImage::from_fn(64, 64, |x, y| {
                    image::Luma([if is_drawn(class, n, x, y) { class as u8 + 1 } else { 0 }])
                });
                map.save(folder.join(format!("{n:02}.png"))).unwrap();
            }
        }
        fs::write(ground.path("classes.txt"), "ground\ndisc\nsquare\nstripes\ncross\n").unwrap();
        run(splitmask()
            .arg("pack")
            .arg(ground.path("images"))
            .arg(ground.path("data"))
            .args(["--val-share", "0.2", "--shard-size", "100KiB", "--force", "--maps"])
            .arg(ground.path("maps"))
            .arg("--map-classes")
            .arg(ground.path("classes.txt")));
        ground
    }

    /// The same, packed once more with objects, as `objects`: each disc and square is one, with its mask; pictures of stripes and crosses show none. The file
    /// in COCO's form stays as `objects.json`.
    pub(crate) fn with_objects() -> Self {
        let ground = Self::new();
        ground.pack_objects();
        ground
    }

    /// Packs the pictures with objects, see [`Ground::with_objects`].
    pub(crate) fn pack_objects(&self) {
        let ground = self;
        let (mut images, mut annotations) = (vec![], vec![]);
        for (class, n) in (0..4u32).flat_map(|class| (0..40u32).map(move |n| (class, n))) {
            let id = images.len() + 1;
            images.push(json!({ "id": id, "file_name": format!("class{class}/{n:02}.png"), "width": 64, "height": 64 }));
            if class > 1 {
                continue;
            }
            // Down the columns, as COCO has them.
            let (mut runs, mut set, mut corners) = (vec![0u32], false, [64, 64, 0, 0]);
            for (x, y) in (0..64u32).flat_map(|x| (0..64).map(move |y| (x, y))) {
                let here = is_drawn(class, n, x, y);
                if here != set {
                    runs.push(0);
                    set = here;
                }
                *runs.last_mut().unwrap() += 1;
                if here {
                    let [left, top, right, bottom] = corners;
                    corners = [x.min(left), y.min(top), right.max(x + 1), bottom.max(y + 1)];
                }
            }
            let [left, top, right, bottom] = corners;
            annotations.push(json!({
                "id": annotations.len() + 1, "image_id": id, "category_id": class + 1, "iscrowd": 0,
                "bbox": [left, top, right - left, bottom - top], "segmentation": { "size": [64, 64], "counts": runs },
            }));
        }
        let categories = json!([{ "id": 1, "name": "disc" }, { "id": 2, "name": "square" }]);
        let file = json!({ "images": images, "annotations": annotations, "categories": categories });
        fs::write(ground.path("objects.json"), file.to_string()).unwrap();
        run(splitmask()
            .arg("pack")
            .arg(ground.path("images"))
            .arg(ground.path("objects"))
            .args(["--val-share", "0.2", "--shard-size", "100KiB", "--coco"])
            .arg(ground.path("objects.json")));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// A small model that takes some milliseconds a step.
    pub(crate) fn config_text(&self) -> String {
        format!(
            r#"
[run]
name = "test"
dir = "{run}"
seed = 3
[data]
train = "{data}/train"
val = "{data}/val"
shuffle_window = 48
[pipeline]
workers = 2
queue_batches = 2
[codebook]
path = "{words}"
[model]
size = "nano"
image = 32
patch = 8
width = 32
depth = 2
heads = 2
[objective]
kind = "splitmask"
mask = {{ kind = "uniform-split", keep = 0.5 }}
drop_path = 0.1
[optim]
lr = 1e-3
warmup_steps = 10
total_steps = 120
[train]
batch = 16
precision = "f32"
device = "cpu"
threads = 1
[checkpoint]
every_steps = 15
keep = 2
[picture]
every_steps = 50
rows = 2
[log]
every_steps = 4
[admin]
bind = ""
"#,
            run = self.path("run").display(),
            data = self.path("data").display(),
            words = self.path("words.safetensors").display(),
        )
    }

    /// `splitmask train` on the ground's config with further arguments.
    pub(crate) fn train(&self, arguments: &[&str]) -> Command {
        let mut command = splitmask();
        command.arg("train").arg("--config").arg(self.config()).args(arguments);
        command
    }

    /// Fails unless a start with this config, and `sets` over it, is refused as bad input (64) in words that have all of `told`, and leaves no checkpoints.
    #[track_caller]
    pub(crate) fn refuses(&self, text: &str, sets: &[&str], told: &[&str]) {
        fs::write(self.config(), text).unwrap();
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let output = self.train(&sets).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{err}");
        for words in told {
            assert!(err.contains(words), "{words:?} is not in {err}");
        }
        assert!(!self.path("run/checkpoints").exists());
    }

    /// Lines of a run's `metrics.jsonl` without the fields that tell time.
    pub(crate) fn trace(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap_or_default();
        let mut lines: Vec<Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        for line in &mut lines {
            for field in splitmask::trainer::metrics_log::TIMING_FIELDS {
                line.as_object_mut().unwrap().remove(field);
            }
        }
        lines
    }
}

/// Whether a pixel belongs to a disc, square, stripe or cross.
fn is_drawn(class: u32, n: u32, x: u32, y: u32) -> bool {
    let (cx, cy, r) = (20 + (n * 7) % 24, 20 + (n * 11) % 24, 8 + n % 9);
    let (dx, dy) = (x.abs_diff(cx), y.abs_diff(cy));
    match class {
        0 => dx * dx + dy * dy < r * r,
        1 => dx < r && dy < r,
        2 => (x + y + n) % 16 < 6,
        _ => dx < 3 || dy < 3,
    }
}

/// A disc, square, stripe or cross on a tinted ground; no two alike.
fn draw(class: u32, n: u32) -> image::RgbImage {
    image::RgbImage::from_fn(64, 64, |x, y| {
        let inside = is_drawn(class, n, x, y);
        let tint = [(n * 5 % 90) as u8, (n * 13 % 90) as u8, (x + y) as u8];
        image::Rgb(if inside {
            [250 - tint[0], 60 + tint[1], 40]
        } else {
            [tint[0], tint[1], 100 + tint[2]]
        })
    })
}

/// A started daemon; killed when dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) address: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with its admin server on a free port and its log in `log`.
    pub(crate) fn start(command: Command, log: &Path) -> Self {
        let port = free_port();
        Self::start_at(command, log, port, port)
    }

    /// As [`Daemon::start`], with `port` in its config; it answers at `own`.
    pub(crate) fn start_at(mut command: Command, log: &Path, port: u16, own: u16) -> Self {
        let address = format!("127.0.0.1:{own}");
        command.arg("--set").arg(format!("admin.bind=\"127.0.0.1:{port}\""));
        let sink = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(sink).spawn().unwrap();
        Self {
            child,
            address,
            log: log.to_owned(),
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// (status, body) of one request.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        )
        .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        Some((status, body.to_owned()))
    }

    pub(crate) fn status(&self) -> Value {
        self.ask("GET", "/api/v1/status")
            .and_then(|(_, body)| serde_json::from_str(&body).ok())
            .unwrap_or(Value::Null)
    }

    /// Waits until `what` holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !holds(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended ({status}) before {what}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "waited too long until {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
    }

    pub(crate) fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
