//! Promises of the daemon, kept on real processes: the binary is started, killed, reloaded and asked, as an operator would.

mod bench_step;
mod bit_flips;
mod bucket_trouble;
mod collapse;
mod detect;
mod disk_faults;
mod evaluation;
mod exports;
mod failed_reload;
#[path = "../../pipeline/tests/stream_support/fault_server.rs"]
#[allow(dead_code, reason = "shared with the pipeline's tests")]
mod fault_server;
mod finetune;
mod folder_identity;
#[path = "../../pipeline/tests/stream_support/free_port.rs"]
mod free_port;
mod ground;
mod labels;
mod last_checkpoint;
mod limits;
mod memory;
mod mirror;
mod mirror_clouds;
mod operation;
mod pause;
mod pictures;
#[path = "../preload/mod.rs"]
#[allow(dead_code, reason = "shared by two test programs")]
mod preload;
mod ranks;
mod reload_storm;
mod resume;
mod secrets;
mod segment;
#[path = "../../pipeline/tests/stream_support/servers.rs"]
#[allow(dead_code, reason = "shared with the pipeline's tests")]
mod servers;
mod signals;
mod stability;
mod staging;
mod stops;
mod store;
mod store_proxy;
mod tensorboard;
mod trace;
mod watch;
mod words;
