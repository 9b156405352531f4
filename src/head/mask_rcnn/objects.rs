//! What a picture shows.

use super::corners::Corners;
use super::roi_align::Bitmap;

/// Objects of a picture; a picture without any teaches what background is.
#[derive(Debug, Clone, Default)]
pub struct Objects<'a> {
    /// Row of the picture in the batch of a step, over all ranks: what is sampled of it is drawn by this number.
    pub row: u64,
    /// Boxes in pixels of the canvas, of sides above 0.
    pub boxes: &'a [Corners],
    /// Their classes, from 1.
    pub labels: &'a [i64],
    /// Their masks, where they are known; one without teaches its class and box alone.
    pub masks: Vec<Option<Bitmap<'a>>>,
}
