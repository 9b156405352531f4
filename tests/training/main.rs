//! Promises of the daemon, kept on real processes: the binary is started, killed, reloaded and asked, as an operator would.

mod bench_step;
mod bucket_trouble;
mod evaluation;
mod failed_reload;
#[path = "../../pipeline/tests/stream_support/fault_server.rs"]
#[allow(dead_code, reason = "shared with the pipeline's tests")]
mod fault_server;
mod finetune;
mod folder_identity;
mod ground;
mod labels;
mod last_checkpoint;
mod memory;
mod mirror;
mod mirror_clouds;
mod operation;
mod pictures;
mod ranks;
mod resume;
mod segment;
#[path = "../../pipeline/tests/stream_support/servers.rs"]
#[allow(dead_code, reason = "shared with the pipeline's tests")]
mod servers;
mod signals;
mod stability;
mod staging;
mod store;
mod store_proxy;
mod tensorboard;
mod trace;
mod watch;
mod words;
