//! Promises of the daemon that need no model: a fake trainer runs in a real process that is signalled, asked and reloaded.

mod api;
mod browser;
mod bucket_away;
mod fake;
#[path = "../../pipeline/tests/stream_support/free_port.rs"]
mod free_port;
mod hostile;
mod operation;
mod page;
#[path = "../preload/mod.rs"]
#[allow(dead_code, reason = "shared by two test programs")]
mod preload;
mod process;
mod reloads;
mod schema;
mod tls;
