//! A learnt tokenizer through the command line: trained, stopped, gone on with, and trained on.

use std::fs;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::ground::{Daemon, Ground, splitmask};

const TINY: [&str; 20] = [
    "--kind", "dvae", "--words", "32", "--image", "32", "--patch", "8", "--width", "8", "--blocks", "1", "--stride", "4", "--batch", "16",
    "--lr", "3e-3", "--device", "cpu",
];

fn codebook(ground: &Ground, out: &str, steps: &str) -> std::process::Command {
    let mut command = splitmask();
    command
        .arg("codebook")
        .arg(ground.path("data/train"))
        .arg("--out")
        .arg(ground.path(out))
        .args(TINY)
        .args(["--steps", steps, "--measure", "64", "--json"]);
    command
}

#[track_caller]
fn good(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

#[test]
fn a_tokenizer_is_trained_stopped_and_finished_as_if_undisturbed() {
    let ground = Ground::new();
    let whole = good(
        &codebook(&ground, "whole.safetensors", "60")
            .arg("--picture")
            .arg(ground.path("sheet.png"))
            .output()
            .unwrap(),
    );
    assert_eq!((&whole["kind"], &whole["header"]["steps"]), (&"dvae".into(), &60.into()));
    assert!(whole["header"]["psnr"].as_f64().unwrap() > 8.0, "{whole}");
    assert!(whole["usage"]["distinct"].as_u64().unwrap() > 1, "{whole}");
    let sheet = image::open(ground.path("sheet.png")).unwrap();
    assert!(sheet.width() > 3 * 3 * 16 && sheet.height() > 16);

    let mut child = codebook(&ground, "cut.safetensors", "60")
        .args(["--save-every", "5"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // It is stopped as soon as it has begun, however quick the machine is.
    while !ground.path("cut.safetensors.unfinished").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before its first save");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = std::process::Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(ground.path("cut.safetensors.unfinished").exists() && !ground.path("cut.safetensors").exists());
    let cut = good(&codebook(&ground, "cut.safetensors", "60").output().unwrap());
    assert_eq!(cut["id"], whole["id"]);
    assert!(!ground.path("cut.safetensors.unfinished").exists());
    let bytes = |name: &str| fs::read(ground.path(name)).unwrap();
    assert_eq!(bytes("cut.safetensors"), bytes("whole.safetensors"));

    let described = splitmask().arg("inspect").arg(ground.path("whole.safetensors")).output().unwrap();
    let text = String::from_utf8_lossy(&described.stdout);
    assert!(
        described.status.success() && text.contains("dvae") && text.contains("32 words"),
        "{text}"
    );
    let described = splitmask()
        .arg("inspect")
        .arg(ground.path("words.safetensors"))
        .arg("--json")
        .output()
        .unwrap();
    assert_eq!(good(&described)["kind"], "random-patches");
}

#[test]
fn a_run_on_a_learnt_vocabulary_resumes_bit_for_bit_and_beit_takes_it_too() {
    let ground = Ground::new();
    good(&codebook(&ground, "dvae.safetensors", "30").output().unwrap());
    let words = format!("codebook.path=\"{}\"", ground.path("dvae.safetensors").display());
    let set = |run: &str| format!("run.dir=\"{}\"", ground.path(run).display());
    let (whole, killed) = (set("whole"), set("killed"));
    let common = ["--set", "optim.total_steps=90", "--set", &words, "--set"];
    let train = |run: &str| {
        let mut arguments = common.to_vec();
        arguments.push(run);
        ground.train(&arguments)
    };
    good(&train(&whole).output().unwrap());
    let want = ground.trace("whole");
    let (first, last) = (&want[0], want.last().unwrap());
    assert!(
        first["inpaint"].as_f64().unwrap() > last["inpaint"].as_f64().unwrap(),
        "it learns: {want:?}"
    );
    let entropy = last["token_entropy"].as_f64().unwrap();
    assert!(entropy > 0.0 && entropy <= 32f64.ln(), "{entropy}");
    assert!(ground.path("whole/inpaint.png").exists());

    let mut daemon = Daemon::start(train(&killed), &ground.path("killed.log"));
    daemon.until("the step of the kill", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 37));
    daemon.signal("KILL");
    assert!(!daemon.end().success());
    good(&train(&killed).arg("--set").arg("pipeline.workers=1").output().unwrap());
    assert_eq!(ground.trace("killed"), want);

    // Another vocabulary of the same size is another run.
    good(&codebook(&ground, "other.safetensors", "3").output().unwrap());
    let other = format!("codebook.path=\"{}\"", ground.path("other.safetensors").display());
    let refused = ground
        .train(&["--set", "optim.total_steps=95", "--set", &other, "--set", &whole])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(64));

    let text = fs::read_to_string(ground.config()).unwrap();
    let text = text.replace(
        "kind = \"splitmask\"\nmask = { kind = \"uniform-split\", keep = 0.5 }",
        "kind = \"beit\"\nmask = { kind = \"blockwise-mask\", count = 6, min_block = 2, max_block = 4 }",
    );
    assert!(text.contains("beit"));
    fs::write(ground.config(), text).unwrap();
    let beit = set("beit");
    good(
        &ground
            .train(&["--set", "optim.total_steps=12", "--set", &words, "--set", &beit])
            .output()
            .unwrap(),
    );
    assert!(ground.trace("beit").last().unwrap()["inpaint"].as_f64().unwrap() < 10.0);
}
