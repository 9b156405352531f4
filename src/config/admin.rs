//! `[admin]`: the HTTP server, the file watch, the end. The daemon, which they are for, is built from a whole config and stands above it.

use std::net::SocketAddr;

use crate::setting::{Findings, settings};

settings! {
    /// `[admin]`: the HTTP server, the file watch, the end.
    pub struct AdminConfig in "admin" {
        /// Address of the admin server, moved without a pause; empty = none.
        Live bind: String = "127.0.0.1:9464".into(),
        /// Whether POST endpoints act.
        Live lifecycle: bool = false,
        /// File with the bearer token of POSTs; empty = none.
        Live token_file: String = String::new(),
        /// Host names, besides IP addresses and localhost, by which page, status and POSTs without a token may be asked for.
        Live hosts: Vec<String> = vec![],
        /// Seconds from SIGTERM to the end at most.
        Live grace_s: f64 = 60.0,
        /// Whether a change of the file's content reloads it.
        Live watch: bool = true,
        /// Seconds without a step after which the trainer counts as stuck; ten median steps if those are longer.
        Live watchdog_s: f64 = 300.0,
        /// Whether a trainer that counts as stuck ends the process, with exit code 77, for whoever starts it again.
        Live watchdog_exit: bool = false,
    }
}

impl AdminConfig {
    /// Checks ranges, the address, and that whoever can act from other machines needs a token.
    pub fn check(&self, found: &mut Findings) {
        found.need(
            (0.0..=86_400.0).contains(&self.grace_s),
            "admin.grace_s",
            self.grace_s,
            "0 to 86400 seconds",
        );
        found.need(
            (1.0..=86_400.0).contains(&self.watchdog_s),
            "admin.watchdog_s",
            self.watchdog_s,
            "1 to 86400 seconds",
        );
        if self.bind.is_empty() {
            return;
        }
        let (address, shown) = (self.bind.parse::<SocketAddr>(), format!("{:?}", self.bind));
        found.need_or(
            address.is_ok(),
            "admin.bind",
            &shown,
            "an IP address and a port",
            "for example \"127.0.0.1:9464\", \"0.0.0.0:9464\" or \"[::1]:9464\"",
        );
        let open = address.is_ok_and(|a| !a.ip().is_loopback());
        found.need_or(
            !(open && self.lifecycle && self.token_file.is_empty()),
            "admin.bind",
            &shown,
            "an address of this machine alone: beyond loopback, admin.lifecycle needs admin.token_file",
            "set admin.token_file to a file with at least 32 bytes of secret, for example from `openssl rand -hex 32`, or bind to 127.0.0.1",
        );
    }
}
