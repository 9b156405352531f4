//! Promises of the stream, in one program, for each program takes its time to be linked. What measures time is in stream_speed.

#[path = "../stream_support/alone.rs"]
mod alone;
#[path = "../stream_support/fault_server.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod fault_server;
#[path = "../stream_support/free_port.rs"]
mod free_port;
#[path = "../stream_support/remote.rs"]
mod remote;
#[path = "../stream_support/servers.rs"]
mod servers;
#[path = "../stream_support/mod.rs"]
mod stream_support;

mod bad_files;
mod cache;
mod clouds;
mod epoch;
mod failures;
mod faults;
mod manifest;
mod members;
mod mixture;
mod order;
mod plain_web;
mod prefix_stores;
mod refusals;
mod s3;
mod stripes;
mod window;
