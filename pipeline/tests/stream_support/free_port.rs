//! Ports for servers that are started a while later.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;

/// A port that nobody listens at, like the three behind it; drawn by chance below those that the kernel gives to whoever asks for any.
pub(crate) fn free_port() -> u16 {
    let free = |port: u16| (port..port + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let drawn = || 15_000 + (RandomState::new().build_hasher().finish() % 15_000) as u16;
    std::iter::repeat_with(drawn)
        .take(1000)
        .find(|port| free(*port))
        .expect("free ports")
}
