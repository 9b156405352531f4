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
        /// File with the token that reads are asked for, `/metrics` and the page too; empty = none. The lifecycle token may read as well.
        Live read_token_file: String = String::new(),
        /// File with the certificate chain (PEM) of the admin server, which then speaks TLS only; empty = plain HTTP.
        Live tls_cert: String = String::new(),
        /// File with the private key (PEM) of that certificate. Both files are looked at every second: a renewed pair is served without a restart.
        Live tls_key: String = String::new(),
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
    /// Whether a token would cross the network in the clear.
    #[must_use]
    pub fn tells_tokens(&self) -> bool {
        let open = self.bind.parse::<SocketAddr>().is_ok_and(|a| !a.ip().is_loopback());
        open && self.tls_cert.is_empty() && !(self.token_file.is_empty() && self.read_token_file.is_empty())
    }

    /// Where the server is to be found by a browser; `address` as it listens.
    #[must_use]
    pub fn url(&self, address: impl std::fmt::Display) -> String {
        let scheme = if self.tls_cert.is_empty() { "http" } else { "https" };
        format!("{scheme}://{address}/")
    }

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
        let lacks = |one: &str, other: &str| one.is_empty() && !other.is_empty();
        found.need_or(
            !lacks(&self.tls_cert, &self.tls_key),
            "admin.tls_cert",
            "\"\"",
            "a file with the certificate of admin.tls_key",
            "set both, or none for plain HTTP",
        );
        found.need_or(
            !lacks(&self.tls_key, &self.tls_cert),
            "admin.tls_key",
            "\"\"",
            "a file with the private key of admin.tls_cert",
            "set both, or none for plain HTTP",
        );
        found.need_or(
            !(self.lifecycle && self.token_file.is_empty() && !self.read_token_file.is_empty()),
            "admin.token_file",
            "\"\"",
            "a file: where reads need a token (admin.read_token_file), what acts needs one of its own",
            "set admin.token_file to a file with another token, or admin.lifecycle = false",
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
