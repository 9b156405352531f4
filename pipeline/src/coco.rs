//! COCO's form of objects in pictures: files of annotations, polygons and runs as masks, to the pixel as COCO's own program has them. Plain numbers, which
//! know neither pictures nor shards.

mod file;
mod polygon;
mod run_length;
mod segmentation;
pub mod spelt;

pub use file::{AnnotatedPicture, Annotation, Category, CocoError, CocoFile, read_json};
pub use polygon::rasterise;
pub use run_length::{RunLength, RunLengthError};
pub use segmentation::{Counts, Segmentation, box_of};
