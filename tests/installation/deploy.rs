//! The files under `deploy`, as far as they can be tried without a cluster or a service manager.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{SPLITMASK, cache, done, file, install_program, names, said};

fn text(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What the list of fields of Kubernetes and its extensions says of some files.
fn checked(files: &[PathBuf]) -> Output {
    let packages = cache().join("deploy");
    assert!(
        packages.join("yaml").is_dir(),
        "the Python package PyYAML is missing; `make setup` fetches it"
    );
    let mut command = Command::new("python3");
    command.arg("-B").arg(file("tests/installation/kubernetes/check.py")).args(files);
    command.env("PYTHONPATH", packages).output().expect("python3 runs")
}

#[test]
fn kubernetes_knows_every_field_and_a_misspelt_one_is_found() {
    let folder = file("deploy/kubernetes");
    let files: Vec<PathBuf> = names(&folder).iter().map(|name| folder.join(name)).collect();
    assert_eq!(files.len(), 4);
    let right = checked(&files);
    assert!(right.status.success(), "{}", said(&right));
    let dir = tempfile::tempdir().unwrap();
    for (of, from, to, told) in [
        (
            "job.yaml",
            "restartPolicy: Never",
            "restartPolice: Never",
            "restartPolice: there is no such field",
        ),
        ("job.yaml", "backoffLimit: 10", "backoffLimit: many", "'many' is no integer"),
        ("jobset.yaml", "BlockingRecreate", "Restart", "'Restart' is none of"),
        (
            "jobset.yaml",
            "      - name: config\n                      mountPath",
            "      - mountPath",
            "name is missing",
        ),
        (
            "trainjob.yaml",
            "numProcPerNode",
            "procsPerNode",
            "procsPerNode: there is no such field",
        ),
        (
            "podmonitor.yaml",
            "podMetricsEndpoints",
            "podMetricEndpoints",
            "podMetricEndpoints: there is no such field",
        ),
        (
            "podmonitor.yaml",
            "kind: PodMonitor",
            "kind: PodWatcher",
            "unknown kind monitoring.coreos.com/v1 PodWatcher",
        ),
    ] {
        let whole = fs::read_to_string(folder.join(of)).unwrap();
        assert!(whole.contains(from), "{of} has no {from:?}");
        let broken = dir.path().join(of);
        fs::write(&broken, whole.replace(from, to)).unwrap();
        let answer = checked(&[broken]);
        assert!(!answer.status.success() && said(&answer).contains(told), "{of}: {}", said(&answer));
    }
}

/// The number behind a word of a file.
fn number(text: &str, word: &str) -> u64 {
    let rest = &text[text.find(word).unwrap_or_else(|| panic!("{word} is missing")) + word.len()..];
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {word}"))
}

/// Time to stop is longer than what the program takes for its last checkpoint, and ports and paths are those that it serves.
#[test]
fn the_files_agree_with_the_program() {
    let keys = splitmask::config::keys::keys();
    let admin = splitmask::config::AdminConfig::default();
    let grace = admin.grace_s as u64;
    assert!(number(&text("deploy/slurm/train.sbatch"), "--signal=TERM@") > grace);
    assert!(number(&text("deploy/systemd/splitmask@.service"), "TimeoutStopSec=") > grace);
    for pod in ["job", "jobset"] {
        let pod = text(&format!("deploy/kubernetes/{pod}.yaml"));
        assert!(number(&pod, "terminationGracePeriodSeconds:") > grace + 30);
        for path in ["/-/healthy", "/-/ready"] {
            assert!(pod.contains(&format!("path: {path}\n")), "{path}");
        }
    }
    let port: u64 = admin.bind.rsplit_once(':').unwrap().1.parse().unwrap();
    let (jobset, monitor) = (text("deploy/kubernetes/jobset.yaml"), text("deploy/kubernetes/podmonitor.yaml"));
    for rank in 0..number(&jobset, "--nproc-per-node=") {
        assert!(jobset.contains(&format!(
            "- name: metrics-{rank}\n                      containerPort: {}\n",
            port + rank
        )));
        assert!(monitor.contains(&format!("- port: metrics-{rank}\n")));
    }
    assert_eq!(number(&jobset, "nvidia.com/gpu: \""), number(&jobset, "--nproc-per-node="));
    assert_eq!(number(&jobset, "parallelism:"), number(&jobset, "--nnodes="));
    let train_job = text("deploy/kubernetes/trainjob.yaml");
    assert!(number(&train_job, "ADMIN__GRACE_S\n        value: \"") < 30, "torchrun's time");
    // torchrun leaves the ranks of PET_… variables to itself; ours are those of its workers.
    for name in ["SPLITMASK_ADMIN__BIND", "SPLITMASK_ADMIN__GRACE_S"] {
        let key = name.trim_start_matches("SPLITMASK_").replace("__", ".").to_lowercase();
        assert!(keys.iter().any(|k| k.path == key), "{name}");
    }
}

#[test]
fn systemd_knows_every_key_of_the_unit_and_a_misspelt_one_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let verified = |unit: &str| {
        // What depends on this machine: where the program lies, and whether its manual does.
        let unit = unit.replace("/opt/splitmask/bin/splitmask", SPLITMASK);
        let unit: String = unit
            .lines()
            .filter(|l| !l.starts_with("Documentation="))
            .map(|l| format!("{l}\n"))
            .collect();
        let path = dir.path().join("splitmask@.service");
        fs::write(&path, unit).unwrap();
        let output = Command::new("systemd-analyze").arg("verify").arg(&path).output();
        let output = output.expect("systemd-analyze is needed: apt-get install systemd");
        // It ends with 0 on keys that it does not know; other units of the machine are none of ours.
        said(&output)
            .lines()
            .filter(|line| line.contains("splitmask"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let unit = text("deploy/systemd/splitmask@.service");
    assert_eq!(verified(&unit), [""; 0]);
    let told = verified(&unit.replace("\nRestartSec=", "\nRestartSeconds="));
    assert!(told.len() == 1 && told[0].contains("RestartSeconds"), "{told:?}");
}

/// Runs the batch script with a `srun` and a `scontrol` of ours; answers its exit code, what it said, and what it asked `scontrol` for.
fn batch(srun: &str, restarts: &str, signal: bool) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let tool = |name: &str, script: &str| {
        let source = dir.path().join(format!("{name}.sh"));
        fs::write(&source, format!("#!/bin/bash\n{script}\n")).unwrap();
        install_program(&source, &dir.path().join(name));
    };
    let asked = dir.path().join("asked");
    tool("srun", &format!("echo srun \"$@\"; {srun}"));
    tool("scontrol", &format!("echo \"$@\" > {}", asked.display()));
    let mut script = Command::new("bash")
        .arg(file("deploy/slurm/train.sbatch"))
        .args(["runs/birds.toml", "--set", "optim.lr=1e-3"])
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .env("SLURM_JOB_ID", "71")
        .env("SLURM_RESTART_COUNT", restarts)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if signal {
        std::thread::sleep(Duration::from_millis(500));
        done(Command::new("kill").arg("-TERM").arg(script.id().to_string()));
    }
    let mut told = String::new();
    script.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    script.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    let code = script.wait().unwrap().code();
    (code, told, fs::read_to_string(asked).unwrap_or_default())
}

#[test]
fn the_batch_script_requeues_what_can_go_on_and_nothing_else() {
    let (code, told, asked) = batch("exit 0", "0", false);
    assert_eq!((code, asked.as_str()), (Some(0), ""), "{told}");
    assert!(
        told.contains("srun --kill-on-bad-exit=1 --label splitmask train --config runs/birds.toml --set optim.lr=1e-3"),
        "{told}"
    );
    for refused in [64, 70, 76] {
        let (code, told, asked) = batch(&format!("exit {refused}"), "0", false);
        assert_eq!((code, asked.as_str()), (Some(refused), ""), "{told}");
    }
    for on in [74, 75, 77, 137] {
        let (code, told, asked) = batch(&format!("exit {on}"), "3", false);
        assert_eq!((code, asked.trim()), (Some(on), "requeue 71"), "{told}");
        assert!(told.contains("start 5 of the run"), "{told}");
    }
    let (code, told, asked) = batch("exit 75", "50", false);
    assert_eq!((code, asked.as_str()), (Some(75), ""), "{told}");
    assert!(told.contains("started anew 50 times"), "{told}");
    // A signal to the batch shell does not take it away from its ranks.
    let (code, told, asked) = batch("sleep 1.5; exit 75", "0", true);
    assert_eq!((code, asked.trim()), (Some(75), "requeue 71"), "{told}");
    let none = Command::new("bash").arg(file("deploy/slurm/train.sbatch")).output().unwrap();
    assert!(none.status.code() == Some(64) && said(&none).contains("usage:"), "{}", said(&none));
}

/// Every rank of a container gets the signal, nothing else does, and the script ends when they have.
#[test]
fn a_container_waits_for_its_ranks_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("splitmask");
    // A process is known by the name of its program's file.
    install_program(Path::new("/bin/bash"), &program);
    let rank = || {
        Command::new(&program)
            .args(["-c", "trap 'sleep 0.5; exit 75' TERM; while true; do sleep 0.05; done"])
            .spawn()
            .unwrap()
    };
    let mut ranks = [rank(), rank()];
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let proc = dir.path().join("proc");
    fs::create_dir(&proc).unwrap();
    for pid in [ranks[0].id(), ranks[1].id(), other.id()] {
        std::os::unix::fs::symlink(format!("/proc/{pid}"), proc.join(pid.to_string())).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    done(Command::new("sh").arg(file("deploy/image/stop-and-wait")).env("PROC", &proc));
    assert!(began.elapsed() >= Duration::from_millis(400), "it waits");
    for rank in &mut ranks {
        assert_eq!(rank.try_wait().unwrap().expect("it has ended").code(), Some(75));
    }
    assert!(other.try_wait().unwrap().is_none(), "no rank");
    other.kill().unwrap();
    other.wait().unwrap();
}
