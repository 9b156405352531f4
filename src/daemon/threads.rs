//! What every thread of this process is doing, for the moment when one of them hangs.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::trainer::control::Status;

/// One paragraph per thread from `/proc/self/task`: name, state, the kernel function it sleeps in, its system call, and its kernel stack where this
/// user may read it. Empty where there is no such file system.
#[must_use]
pub fn report() -> String {
    let mut text = String::new();
    let mut tasks: Vec<(u64, PathBuf)> = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    tasks.sort();
    for (id, folder) in tasks {
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default().trim().to_owned();
        let (stat, call) = (read("stat"), read("syscall"));
        // "1 (name) S …": the name may hold anything, so the state is what follows the last parenthesis.
        let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| rest.get(..1).unwrap_or("?"));
        let ticks = |n: usize| {
            let field = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(n));
            field.unwrap_or("?").to_owned()
        };
        let _ = writeln!(
            text,
            "thread {id} {:?}: state {state}, in {}, system call {}, {} user and {} system ticks",
            read("comm"),
            read("wchan"),
            if call.is_empty() { "unknown" } else { call.as_str() },
            ticks(11),
            ticks(12)
        );
        for line in read("stack").lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// Writes `RUN/hang-step-….txt`: why, the trainer's status with queue levels, all threads, and the command that tells where each is in its program,
/// which only a debugger can find out without risk. Answers the file.
///
/// # Errors
/// The file cannot be written.
pub fn write(run_dir: &Path, reason: &str, status: &Status) -> std::io::Result<PathBuf> {
    let path = run_dir.join(format!("hang-step-{:08}.txt", status.step));
    let shown = serde_json::json!({
        "state": status.state, "step": status.step, "epoch": status.epoch, "cursor": status.cursor,
        "queue_batches": status.queue.0, "queue_capacity_batches": status.queue.1, "last_checkpoint_step": status.last_checkpoint_step,
        "data_wait_ratio": status.data_wait_ratio,
    });
    let pid = std::process::id();
    let stacks = format!("stacks, while the process lives: gdb -p {pid} -batch -ex 'thread apply all backtrace', or eu-stack -p {pid}");
    std::fs::write(&path, format!("{reason}\n{shown}\n{stacks}\n\n{}", report()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeping_thread_is_found_by_its_name() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("dreamer".into())
            .spawn(move || {
                let _ = stopped.recv();
            })
            .unwrap();
        let found = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            report().lines().any(|l| l.contains("\"dreamer\": state S"))
        });
        drop(stop);
        thread.join().unwrap();
        assert!(found, "{}", report());
    }

    #[test]
    fn the_file_holds_status_and_threads() {
        let dir = tempfile::tempdir().unwrap();
        let status = Status {
            step: 7,
            queue: (2, 4),
            ..Status::default()
        };
        let text = std::fs::read_to_string(write(dir.path(), "no progress", &status).unwrap()).unwrap();
        assert!(
            text.starts_with("no progress\n")
                && text.contains("\"queue_batches\":2")
                && text.contains("thread ")
                && text.contains(&format!("gdb -p {} ", std::process::id())),
            "{text}"
        );
    }
}
