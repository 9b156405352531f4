//! Promises of the daemon that need no model: a fake trainer runs in a real process that is signalled, asked and reloaded.

mod fake;
mod hostile;
mod operation;
mod process;
mod reloads;
