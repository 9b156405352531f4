//! What an evaluation tells while it runs, and how it is ended.

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No images have come for a while.
    Waiting,
    /// So many images of the set of that name, `train` or `val`, are through.
    Images(&'static str, usize),
    /// Probes done, of how many.
    Fits(usize, usize),
}

/// What an evaluation hears between its parts; it ends with [`super::EvalError::OutOfTime`] once that answers `false`.
pub type GoOn<'a> = &'a mut dyn FnMut(Progress) -> bool;
