//! Where a libtorch may be.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::torch::{Torch, WANTED};

/// Prints the folder of the package torch without importing it. A folder of that name in the working directory does not count.
const ASK: &str = "import sys; sys.path = [p for p in sys.path if p]
import importlib.util as u; s = u.find_spec('torch'); print(list(s.submodule_search_locations)[0] if s else '')";

/// All that the search looks at beside files.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Folder above `bin` of this installation.
    pub prefix: Option<PathBuf>,
    /// LIBTORCH: if set, nothing else is tried.
    pub libtorch: Option<PathBuf>,
    /// VIRTUAL_ENV and CONDA_PREFIX, as far as set.
    pub active: Vec<PathBuf>,
    /// Folders of PATH.
    pub path: Vec<PathBuf>,
}

impl Surroundings {
    /// Those of this process, whose executable lies at `own` (links resolved).
    #[must_use]
    pub fn of_process(own: &Path) -> Self {
        let folder = |name| std::env::var_os(name).filter(|v: &OsString| !v.is_empty()).map(PathBuf::from);
        Self {
            prefix: own.parent().and_then(Path::parent).map(Path::to_owned),
            libtorch: folder("LIBTORCH"),
            active: ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(folder).collect(),
            path: std::env::var_os("PATH")
                .map(|p| std::env::split_paths(&p).collect())
                .unwrap_or_default(),
        }
    }
}

/// No libtorch fits. Its text says where it was looked for and what was there.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    /// One line for each place.
    pub looked: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "splitmask needs libtorch {WANTED}, which the Python package torch brings, and found none"
        )?;
        for line in &self.looked {
            write!(f, "\n  {line}")?;
        }
        write!(
            f,
            "\nhint: install it beside splitmask (pip install 'torch=={WANTED}.*'), or set LIBTORCH to the folder of a libtorch {WANTED}, the one that holds lib/libtorch_cpu.so"
        )
    }
}

impl std::error::Error for Missing {}

/// The first libtorch that fits: LIBTORCH alone if that is set; else the package torch in the environment of this installation, then in
/// an activated one, by their usual folders, which costs no process; else wherever the Pythons of these environments and of PATH would
/// import it from (a venv over the system's packages, a user install, a folder added by a .pth file).
///
/// # Errors
/// [`Missing`].
pub fn find(surroundings: &Surroundings) -> Result<Torch, Missing> {
    let mut looked = Vec::new();
    if let Some(folder) = &surroundings.libtorch {
        return Torch::open(folder).map_err(|why| Missing {
            looked: vec![format!("LIBTORCH={} {why}", folder.display())],
        });
    }
    let mut seen = BTreeSet::new();
    let prefixes: Vec<&PathBuf> = surroundings
        .prefix
        .iter()
        .chain(&surroundings.active)
        .filter(|p| seen.insert(*p))
        .collect();
    let mut tried = BTreeSet::new();
    let mut open = |folder: PathBuf, looked: &mut Vec<String>| {
        if !tried.insert(folder.clone()) {
            return None;
        }
        Torch::open(&folder)
            .map_err(|why| looked.push(format!("{} {why}", folder.display())))
            .ok()
    };
    for prefix in &prefixes {
        let folders = packages(prefix);
        if folders.is_empty() {
            looked.push(format!("{} has no lib/python3.*/site-packages/torch", prefix.display()));
        }
        for folder in folders {
            if let Some(torch) = open(folder, &mut looked) {
                return Ok(torch);
            }
        }
    }
    let bins = prefixes.iter().map(|p| p.join("bin")).chain(surroundings.path.iter().cloned());
    let mut asked = BTreeSet::new();
    for python in bins.flat_map(|bin| ["python3", "python"].map(|name| bin.join(name))) {
        // `python` is mostly a link to `python3`, and often both to one interpreter of another folder; a venv's, though, is not what it links to.
        if !python.is_file() || !asked.insert(python.parent().map(Path::to_owned)) {
            continue;
        }
        match ask(&python) {
            Ok(Some(folder)) => {
                if let Some(torch) = open(folder, &mut looked) {
                    return Ok(torch);
                }
            }
            Ok(None) => looked.push(format!("{} has no package torch", python.display())),
            Err(why) => looked.push(format!("{} {why}", python.display())),
        }
    }
    Err(Missing { looked })
}

/// Folders called `torch` where Python environments keep packages, those of newer Pythons first.
fn packages(prefix: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for lib in ["lib", "lib64"] {
        let entries = std::fs::read_dir(prefix.join(lib)).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(version) = name.strip_prefix("python3") else { continue };
            let minor: u32 = version.trim_start_matches('.').parse().unwrap_or(0);
            // Debian calls the folder otherwise.
            found.extend(["site-packages", "dist-packages"].map(|kind| (minor, entry.path().join(kind).join("torch"))));
        }
    }
    // `pip install --target` has no such folders.
    found.push((0, prefix.join("torch")));
    found.retain(|(_, folder)| folder.is_dir());
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The folder that this Python would import torch from; none if it has no torch.
fn ask(python: &Path) -> Result<Option<PathBuf>, String> {
    let output = Command::new(python)
        .args(["-c", ASK])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("does not run: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("could not be asked: {}", said.lines().last().unwrap_or("it said nothing")));
    }
    Ok(Some(text.trim()).filter(|t| !t.is_empty()).map(PathBuf::from))
}

#[cfg(test)]
mod tests;
