//! The port of the admin server.

use std::net::{SocketAddr, TcpListener};

/// Binds the address of a validated config, `offset` ports behind the one there (port 0 = any that is free); empty = `None`.
///
/// # Errors
/// The system's reason.
pub(crate) fn bind(address: &str, offset: usize) -> Result<Option<TcpListener>, String> {
    if address.is_empty() {
        return Ok(None);
    }
    let mut parsed: SocketAddr = address.parse().map_err(|e: std::net::AddrParseError| e.to_string())?;
    if parsed.port() != 0 {
        let port = u16::try_from(usize::from(parsed.port()) + offset);
        parsed.set_port(port.map_err(|_| format!("port {} + LOCAL_RANK = {offset} is beyond the last port", parsed.port()))?);
    }
    let listener = TcpListener::bind(parsed).map_err(|e| e.to_string())?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok(Some(listener))
}
