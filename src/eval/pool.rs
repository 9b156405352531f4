//! What of a layer's tokens makes a feature.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::objective;

/// What of a layer's tokens is a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Mean of the patch tokens.
    #[default]
    Mean,
    /// Class token. SplitMask gives it no loss of its own.
    Cls,
    /// Both, one behind the other (the released BEiT probe).
    Both,
}

impl Pool {
    /// The feature of an objective whose loss sees these tokens.
    #[must_use]
    pub fn that_learns(by: objective::Pool) -> Self {
        match by {
            objective::Pool::Mean => Self::Mean,
            objective::Pool::Class => Self::Cls,
        }
    }

    /// As it is written in tables and arguments.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Both => "both",
        }
    }

    /// In words, for those who read an answer.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Mean => "mean of the patch tokens",
            Self::Cls => "class token",
            Self::Both => "class token and mean of the patch tokens",
        }
    }

    /// Tokens B×(1+N)×D to B×D, or B×2D for [`Pool::Both`]; f32.
    pub fn of(self, tokens: &Tensor) -> Tensor {
        let class = || tokens.select(1, 0).to_kind(Kind::Float);
        let mean = || {
            let patches = tokens.narrow(1, 1, tokens.size()[1] - 1);
            patches.to_kind(Kind::Float).mean_dim(1i64, false, Kind::Float)
        };
        match self {
            Self::Mean => mean(),
            Self::Cls => class(),
            Self::Both => Tensor::cat(&[class(), mean()], 1),
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.name())
    }
}
