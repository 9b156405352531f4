//! Where shards live: object stores and folders behind one interface, and the manifest that describes them.

pub mod manifest;
