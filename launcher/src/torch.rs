//! One folder that may be a libtorch: `site-packages/torch`, or an unpacked libtorch archive.

use std::path::{Path, PathBuf};

/// The series of libtorch that the program was built against; within one, libtorch keeps its binary interface.
pub const WANTED: &str = "2.11";

/// A libtorch that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torch {
    /// The folder with `lib` in it.
    pub folder: PathBuf,
    /// As the folder says, such as `2.11.0+cu130`.
    pub version: String,
    /// Folders of its libraries. Two where `lib` holds links to another folder (conda does this), since libraries look for each other
    /// beside the place that they were loaded from.
    pub libraries: Vec<PathBuf>,
}

impl Torch {
    /// The libtorch in `folder`.
    ///
    /// # Errors
    /// Why it will not do, in words that follow the folder's name.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let library = folder.join("lib/libtorch_cpu.so");
        let Ok(real) = library.canonicalize() else {
            return Err("holds no lib/libtorch_cpu.so".into());
        };
        let Some(version) = version(folder) else {
            return Err("has neither version.py nor build-version, so its version is unknown".into());
        };
        if version != WANTED && !version.starts_with(&format!("{WANTED}.")) {
            return Err(format!("is of version {version}"));
        }
        let mut libraries = vec![folder.join("lib")];
        let beside = real.parent().unwrap_or(folder);
        if folder.join("lib").canonicalize().is_ok_and(|lib| lib != beside) {
            libraries.push(beside.to_owned());
        }
        Ok(Self {
            folder: folder.to_owned(),
            version,
            libraries,
        })
    }
}

/// What the Python package writes into version.py, or the libtorch archive into build-version.
fn version(folder: &Path) -> Option<String> {
    if let Ok(python) = std::fs::read_to_string(folder.join("version.py")) {
        let line = python.lines().find_map(|l| l.strip_prefix("__version__"))?;
        return line.split(['\'', '"']).nth(1).map(str::to_owned);
    }
    let plain = std::fs::read_to_string(folder.join("build-version")).ok()?;
    Some(plain.trim().to_owned()).filter(|v| !v.is_empty())
}
