//! Tar shards: their bytes, entries, samples, and the order in which an epoch goes through them.

pub mod byte_reader;
pub(crate) mod filler;
pub mod interleave;
pub mod key;
mod local_file;
pub mod mixture;
pub mod plan;
mod ranks;
pub mod reader;
pub mod samples;
pub mod sequence;
pub mod striped;
pub mod stripes;
pub mod subset;
pub mod tally;
pub mod tar;
pub mod window;
mod window_size;
