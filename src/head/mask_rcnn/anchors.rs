//! Anchors: the boxes that proposals are told relative to (arXiv 1506.01497 §3.1.1), by torchvision's rules.

use super::corners::Corners;

/// Height ÷ width of the anchors of a place.
const RATIOS: [f32; 3] = [0.5, 1.0, 2.0];

/// Anchors of a place.
pub(super) const ANCHORS: i64 = RATIOS.len() as i64;

/// Anchors of all levels in the order of levels, rows, columns, ratios.
#[derive(Debug, Clone, PartialEq)]
pub struct Anchors {
    /// Of all levels.
    pub boxes: Vec<Corners>,
    /// How many each level has.
    pub of_level: Vec<usize>,
}

impl Anchors {
    /// Of square pictures of `image` pixels with one map a level, `(side of the map in cells, side of its anchors in pixels)`. Corners around a centre are
    /// rounded to whole pixels, and a place's centre is (column, row) times the whole step, as in torchvision.
    #[must_use]
    pub fn new(image: i64, levels: &[(i64, f32)]) -> Self {
        let mut boxes = Vec::new();
        let mut of_level = Vec::new();
        for &(side, size) in levels {
            let around = RATIOS.map(|ratio| {
                let tall = ratio.sqrt();
                let (width, height) = (1.0 / tall * size, tall * size);
                [-width, -height, width, height].map(|corner| (corner / 2.0).round_ties_even())
            });
            let step = image / side;
            let before = boxes.len();
            for row in 0..side {
                for column in 0..side {
                    let (x, y) = ((column * step) as f32, (row * step) as f32);
                    boxes.extend(around.map(|[left, top, right, bottom]| [x + left, y + top, x + right, y + bottom]));
                }
            }
            of_level.push(boxes.len() - before);
        }
        Self { boxes, of_level }
    }
}
