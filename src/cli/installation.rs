//! Where this program was installed.

use std::path::PathBuf;

/// The folder that this program is installed in (`PREFIX/libexec/splitmask/splitmask`, as a wheel or a tarball lays it); none if it was built here.
pub(super) fn installation() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let prefix = own.ancestors().nth(3)?;
    own.ends_with("libexec/splitmask/splitmask").then(|| prefix.to_owned())
}
