//! Promises of the daemon, kept on real processes: the binary is started, killed, reloaded and asked, as an operator would.

mod evaluation;
mod ground;
mod operation;
mod resume;
mod store;
