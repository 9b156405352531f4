//! Vision transformers (arXiv 2010.11929), with variable names equal to timm's state dict.

mod block;
pub mod config;
mod drop_path;
mod flops;
mod init;
mod positions;
mod vit;

pub(crate) use block::layer_norm;
pub use block::{Block, BlockOptions, QkvBias, linear_drop_path};
pub use drop_path::{BatchRows, BatchRowsGuard, drop_channels};
pub use flops::{block_flops, encoder_flops, linear_flops};
pub use init::{Init, linear, parameter, project, through, untrained};
pub use positions::{
    Positions, RelativeBias, grid_of_positions, grid_of_relative_bias, interpolate_positions, interpolate_relative_bias, sin_cos_positions,
};
pub use vit::{Vit, VitOptions, is_backbone_name};
