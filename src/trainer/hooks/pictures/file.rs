//! Where pictures are written.

use std::path::Path;

use crate::eval::EvalError;
use crate::picture::kept;
use crate::trainer::spec::TrainerSpec;

/// Draws `NAME.png` into the run folder, and keeps it among the pictures of earlier steps.
///
/// # Errors
/// As [`put_picture`].
pub(in crate::trainer::hooks) fn put_drawn(spec: &TrainerSpec, name: &str, step: u64, drawn: &image::RgbImage) -> Result<(), EvalError> {
    put_picture(spec, &format!("{name}.png"), |path| drawn.save(path).map_err(|e| e.to_string()))?;
    kept::keep(&spec.run_dir, name, step, spec.picture.keep as usize).map_err(EvalError::Picture)
}

/// Writes a picture beside its place in the run folder and renames it, so that no reader meets half of one.
///
/// # Errors
/// [`EvalError::Picture`]: the folder is not the run's any more, or what `write` or the file system said.
pub(super) fn put_picture(spec: &TrainerSpec, name: &str, write: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), EvalError> {
    let (path, beside) = (spec.run_dir.join(name), spec.run_dir.join(format!(".tmp-{name}")));
    spec.check_folder().map_err(|e| EvalError::Picture(e.to_string()))?;
    let put = write(&beside).and_then(|()| std::fs::rename(&beside, &path).map_err(|e| e.to_string()));
    put.map_err(|reason| {
        let _ = std::fs::remove_file(&beside);
        EvalError::Picture(format!("{}: {reason}", path.display()))
    })
}
