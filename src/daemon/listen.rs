//! The port of the admin server.

use std::net::{SocketAddr, TcpListener};

/// Binds the address of a validated config; empty = `None`.
///
/// # Errors
/// The system's reason.
pub(crate) fn bind(address: &str) -> Result<Option<TcpListener>, String> {
    if address.is_empty() {
        return Ok(None);
    }
    let parsed: SocketAddr = address.parse().map_err(|e: std::net::AddrParseError| e.to_string())?;
    let listener = TcpListener::bind(parsed).map_err(|e| e.to_string())?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok(Some(listener))
}
