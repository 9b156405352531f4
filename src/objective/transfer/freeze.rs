//! What of a pre-trained network stays as it is.

use serde::{Deserialize, Serialize};

use crate::objective::Start;
use crate::setting::{Findings, Fitting};

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

const NO_PATH: &str = "objective.freeze = \"encoder\": what does not learn drops no path";

impl Freeze {
    /// Whether the encoder stays as it is.
    pub(super) fn is_encoder(self) -> bool {
        self == Self::Encoder
    }

    /// Where a run with it may begin.
    pub(super) fn start(self) -> Start {
        match self {
            Self::None => Start::BetterPretrained,
            Self::Encoder => Start::Pretrained("objective.freeze = \"encoder\""),
        }
    }

    /// Gives `objective.drop_path` the value that goes with it, where nobody set it.
    pub(super) fn fit(self, share: &mut f64, fitting: &mut Fitting<'_>) {
        if self.is_encoder() {
            fitting.fit("objective.drop_path", share, 0.0, NO_PATH);
        }
    }

    /// Checks `objective.drop_path` beside it.
    pub(super) fn check(self, share: f64, found: &mut Findings) {
        found.need(
            !self.is_encoder() || share == 0.0,
            "objective.drop_path",
            share,
            format!("0 beside {NO_PATH}"),
        );
    }

    /// Operations of the encoder in a step, as a share of three forward passes: backwards takes two, and a frozen encoder goes forward only.
    pub(super) fn forward_share(self) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Encoder => 1.0 / 3.0,
        }
    }
}
