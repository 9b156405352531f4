//! An image file that was found, with what decides where it is packed.

use std::path::PathBuf;
use std::sync::Arc;

use super::objects::picture::Annotated;
use crate::printable::printable;

/// One image file.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Path below its set's folder as bytes, `/` between folders: decides class, order and share.
    pub(super) relative: Vec<u8>,
    /// What stands before `relative` in the path that people are shown.
    pub(super) prefix: Arc<str>,
    /// Size on disk.
    pub(super) bytes: u64,
    /// Hash that decides whether a share holds it.
    pub(super) split: u64,
    /// Index into [`super::scan::Scan::classes`].
    pub(super) class: Option<u32>,
    /// Where its label map is, if maps are packed.
    pub(super) map: Option<PathBuf>,
    /// What is marked in it, if objects are packed and it is named among them.
    pub(super) objects: Option<Arc<Annotated>>,
    /// Whether it goes to the validation set.
    pub(super) val: bool,
}

impl Found {
    /// Its path for people.
    pub(super) fn shown(&self) -> String {
        format!("{}{}", self.prefix, printable(&self.relative))
    }
}
