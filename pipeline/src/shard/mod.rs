//! Tar shards: their bytes, members, samples, and the order in which an epoch goes through them.

pub mod byte_reader;
pub mod group;
pub mod interleave;
pub mod key;
pub mod members;
pub mod mixture;
pub mod plan;
pub mod reader;
pub mod sequence;
pub mod window;
mod window_size;
