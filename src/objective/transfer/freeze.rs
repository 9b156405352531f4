//! What of a pre-trained network stays as it is.

use serde::{Deserialize, Serialize};

/// What keeps the weights that it starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    /// Nothing: all of the network learns.
    #[default]
    None,
    /// The encoder: only the head learns, without drop path.
    Encoder,
}

/// A step takes the operations of a forward pass three times, backwards twice of them; a frozen encoder goes forward only.
pub(super) const FORWARD_ONLY: f64 = 1.0 / 3.0;
