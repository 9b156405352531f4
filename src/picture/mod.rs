//! Pictures of a run: what the model saw and predicted, what its encoder makes of images, and its curves.

mod config;
mod confusion;
mod curves;
mod drawn;
pub mod kept;
mod neighbours;
mod objects;
mod paint;
mod palette;
mod principal;
mod sheet;
mod text;

pub use config::PictureConfig;
pub use confusion::confusion;
pub use curves::{Point, curves, plot};
pub use drawn::{caption, drawn};
pub use neighbours::{frame, nearest};
pub use objects::{frame_object, lay_object, planes_with_objects};
pub use paint::{framed, heat, patches, smaller};
pub use palette::{class_colour, lay_over, planes_of_classes};
pub use principal::principal_colours;
pub use sheet::{Cell, WordPixels, sheet};
pub use text::{LETTER, write};
