//! The pictures that a run drew, for the card of its export.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::ExportError;
use crate::objective::{Kind, OBJECTIVES};
use crate::picture::{drawn, kept};

/// A picture of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub what: &'static str,
    /// Step at which it was drawn, where that is known.
    pub step: Option<u64>,
    /// The PNG file.
    pub png: Vec<u8>,
}

impl Picture {
    /// The pictures in the folder of a run of that kind, each as it was drawn at `step` or last before. Where the run keeps no earlier ones
    /// (`picture.keep = 0`), the latest, whose step nobody knows.
    ///
    /// # Errors
    /// [`ExportError::Io`], naming the run.
    pub fn of_run(run: &Path, kind: &Kind, step: u64) -> Result<Vec<Self>, ExportError> {
        let mut found = vec![];
        for (name, what) in drawn(kind) {
            let latest = latest(run, name, step).map_err(|source| ExportError::Io {
                path: run.to_owned(),
                source,
            })?;
            found.extend(latest.map(|(step, png)| Self { name, what, step, png }));
        }
        Ok(found)
    }

    /// The name of its file in an export.
    pub(super) fn file(&self) -> String {
        format!("{}.png", self.name)
    }
}

/// Step and content of the picture `name`; `None` where there is none as early as `step`.
fn latest(run: &Path, name: &str, step: u64) -> io::Result<Option<(Option<u64>, Vec<u8>)>> {
    let steps = kept::steps(run, name)?;
    let at = steps.iter().rev().find(|at| **at <= step).copied();
    let file = match at {
        Some(at) => kept::file(run, name, at),
        None if steps.is_empty() => run.join(format!("{name}.png")),
        None => return Ok(None),
    };
    match fs::read(file) {
        Ok(png) => Ok(Some((at, png))),
        // Never drawn, or let go of meanwhile by the run that goes on.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether an export of a run may have written a file of that name as a picture.
pub(super) fn is_picture(file: &str) -> bool {
    let name = file.strip_suffix(".png");
    name.is_some_and(|name| OBJECTIVES.iter().any(|kind| drawn(kind).any(|(known, _)| known == name)))
}
