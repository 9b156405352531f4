//! TLS of the admin port: a certificate with its key, read from two files, and read again when they change.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::daemon_status::{SharedDaemonStatus, lock};
use crate::config::{AdminConfig, file};

/// Pause between two looks at the files. A pair counts once two looks found the same, so that a certificate is not taken without its key.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A certificate that can be served.
#[derive(Clone)]
pub struct Identity {
    /// What a handshake needs.
    pub(super) server: Arc<ServerConfig>,
    /// Of the certificates, which everybody may see.
    digest: [u8; 32],
}

// The key stays where it is.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Identity {
    /// Reads the files of a validated config; `None` where it names none.
    ///
    /// # Errors
    /// The key whose file is wrong, and why. Nothing of a file is told.
    pub(super) fn of(config: &AdminConfig) -> Result<Option<Self>, (&'static str, String)> {
        if config.tls_cert.is_empty() {
            return Ok(None);
        }
        const CERT: &str = "admin.tls_cert";
        const KEY: &str = "admin.tls_key";
        let read = |key, path: &str| file::read(Path::new(path)).map_err(|e| (key, e.to_string()));
        let (cert, key) = (read(CERT, &config.tls_cert)?, read(KEY, &config.tls_key)?);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
        // The library's words for what is wrong with a PEM file repeat lines of it.
        let chain = chain.map_err(|_| (CERT, "is no PEM file with certificates".to_owned()))?;
        if chain.is_empty() {
            return Err((
                CERT,
                "holds no certificate; expected PEM, which begins with -----BEGIN CERTIFICATE-----".into(),
            ));
        }
        let private = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
            let why = "holds no private key; expected PEM without a passphrase, which begins with -----BEGIN PRIVATE KEY-----";
            (KEY, why.to_owned())
        })?;
        let digest = chain.iter().fold(Sha256::new(), |sum, certificate| sum.chain_update(certificate));
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let server = builder
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|e| (CERT, format!("cannot be served with the key in admin.tls_key: {e}")))?;
        let mut server = server;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self {
            server: Arc::new(server),
            digest: digest.finalize().into(),
        }))
    }
}

/// What both files hold now, as far as a watch must know; `None` where the config names none.
fn fingerprint(config: &AdminConfig) -> Option<[Option<String>; 2]> {
    let of = |path: &str| file::fingerprint(Path::new(path));
    (!config.tls_cert.is_empty()).then(|| [of(&config.tls_cert), of(&config.tls_key)])
}

/// Looks at the files that the config in force names until `stop` is dropped, and hands what they hold to `tell` each time that it has changed.
pub(super) fn follow(shown: &SharedDaemonStatus, stop: &Receiver<()>, tell: impl Fn(Result<Identity, String>)) {
    let now = || {
        let config = lock(shown).config.admin.clone();
        (fingerprint(&config), config)
    };
    let (mut told, mut before) = (now().0, None);
    while stop.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let (found, config) = now();
        if found != told && found == before {
            told.clone_from(&found);
            match Identity::of(&config) {
                Ok(None) => {}
                Ok(Some(identity)) => tell(Ok(identity)),
                Err((key, why)) => tell(Err(format!("{key}: {why}"))),
            }
        }
        before = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_no_pair_are_refused_without_showing_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = AdminConfig {
            tls_cert: at("cert"),
            tls_key: at("key"),
            ..AdminConfig::default()
        };
        assert!(Identity::of(&AdminConfig::default()).unwrap().is_none());
        assert_eq!(Identity::of(&config).unwrap_err().0, "admin.tls_cert", "there is none");
        let canary = "-----BEGIN CERTIFICATE-----\nCANARY!!\n-----END CERTIFICATE-----\n";
        for (cert, key, of) in [
            ("CANARY", "CANARY", "admin.tls_cert"),
            (canary, "CANARY", "admin.tls_cert"),
            (
                "-----BEGIN CERTIFICATE-----\nQ0FOQVJZ\n-----END CERTIFICATE-----\n",
                "CANARY",
                "admin.tls_key",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nQ0FOQVJZ\n-----END CERTIFICATE-----\n",
                "-----BEGIN PRIVATE KEY-----\nQ0FOQVJZ\n-----END PRIVATE KEY-----\n",
                "admin.tls_cert",
            ),
        ] {
            std::fs::write(&config.tls_cert, cert).unwrap();
            std::fs::write(&config.tls_key, key).unwrap();
            let (named, why) = Identity::of(&config).unwrap_err();
            assert_eq!(named, of, "{why}");
            assert!(!why.contains("CANARY") && !why.contains("Q0FO"), "{why}");
        }
    }
}
