//! The certificate of the admin port: taken when its files change or a reload reads them, told either way.

use super::Supervisor;
use crate::daemon::tls::Identity;
use crate::daemon::train::Train;

impl<T: Train> Supervisor<T> {
    /// What a valid config brings, or no certificate at all.
    pub(super) fn take_identity(&mut self, identity: Option<Identity>) {
        self.parts.admin.set_tls(identity);
        self.parts.metrics.tls_last_load_successful.set(1.0);
    }

    /// The files have changed.
    pub(super) fn certificate_changed(&mut self, found: Result<Identity, String>) {
        match found {
            Ok(identity) => {
                let news = self.parts.admin.tls().as_ref() != Some(&identity);
                self.take_identity(Some(identity));
                // A reload may have been quicker.
                if news {
                    tracing::info!("the admin server has a new certificate");
                    self.note("certificate", "file", "applied", &[], None);
                }
            }
            Err(why) => {
                self.parts.metrics.tls_last_load_successful.set(0.0);
                tracing::error!("the new certificate is not taken, and the one before is served on: {why}");
                self.note("certificate", "file", "invalid", &[], Some(&why));
            }
        }
    }
}
