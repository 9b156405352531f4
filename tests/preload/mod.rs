//! Faults of a disk and of a clock in a process under test, by a library that is preloaded into it. `faults.c` says what there is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The library, compiled once a test program by what compiles libtorch's bindings.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload/faults.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}.so", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler
            .args(["-Wall", "-O1", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source)
            .arg("-ldl");
        let done = compiler.status().expect("a C compiler is needed: `make setup` installs g++");
        assert!(done.success(), "faults.c does not compile");
        library
    })
}

/// Faults that a process will meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    lines: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Faults {
    /// None yet, of what lies below `root`.
    pub(crate) fn below(root: &Path) -> Self {
        // Without a slash at its end.
        Self::default().with("FAULTS_ROOT", &root.components().collect::<PathBuf>())
    }

    fn with(mut self, name: &'static str, path: &Path) -> Self {
        self.environment.push((name, path.to_owned()));
        self
    }

    /// At the `nth` call (0 = at each) of an operation like `op` on a path like `pattern`, `how` happens.
    pub(crate) fn meet(mut self, op: &str, pattern: &str, nth: u32, how: &str) -> Self {
        self.lines.push(format!("{op} {pattern} {nth} {how}"));
        self
    }

    /// Only while the file `flag` exists.
    pub(crate) fn only_while(self, flag: &Path) -> Self {
        self.with("FAULTS_WHILE", flag)
    }

    /// Calls and faults are appended to `log`.
    pub(crate) fn logged(self, log: &Path) -> Self {
        self.with("FAULTS_LOG", log)
    }

    /// Wall time is off by the seconds that the file `clock` holds.
    pub(crate) fn clock(self, clock: &Path) -> Self {
        self.with("FAULTS_CLOCK", clock)
    }

    /// Gives them to a process.
    pub(crate) fn preload<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let environment = self.environment.iter().map(|(name, path)| (name, path));
        command
            .env("LD_PRELOAD", library())
            .env("FAULTS", self.lines.join("\n"))
            .envs(environment)
    }
}

/// What the log at `path` holds: changes as (operation, path), in order.
pub(crate) fn changes(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let calls = text.lines().filter(|line| !line.starts_with("! "));
    calls
        .filter_map(|line| line.split_once(' '))
        .map(|(op, path)| (op.to_owned(), path.to_owned()))
        .collect()
}

/// The faults that were met, as the log at `path` tells them.
pub(crate) fn met(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix("! ")).map(str::to_owned).collect()
}
