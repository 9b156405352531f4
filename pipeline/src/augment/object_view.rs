//! The objects of a view: moved by the view's own crop and flip, cut to it, and left out where too little of them is seen.

use std::ops::Range;

use crate::decode::{MarkedObject, Objects, Orientation, Rect};
use crate::types::{Object, ObjectCounts, ObjectMask};

use super::crop::CropDraw;

/// Share of an object's box that must be in the view.
const LEAST_SEEN: f64 = 0.1;

/// Moves `objects`, which lie in their picture by `orientation`, into a view of `size` × `size` pixels by `draw`, and says what became of them. A pixel of a
/// mask is that of the picture in which the middle of the view's pixel lies.
pub fn object_view(objects: &Objects, orientation: Orientation, draw: &CropDraw, size: u32, out: &mut Vec<Object>) -> ObjectCounts {
    let mut counts = ObjectCounts::default();
    out.clear();
    let mover = Mover {
        stored: (objects.width, objects.height),
        orientation,
        draw,
        size,
    };
    for marked in &objects.marked {
        let counted = match mover.object(marked) {
            Ok(object) => {
                out.push(object);
                &mut counts.kept
            }
            Err(LeftOut::Outside) => &mut counts.outside,
            Err(LeftOut::Small) => &mut counts.small,
            Err(LeftOut::Hidden) => &mut counts.hidden,
        };
        *counted += 1;
    }
    counts
}

enum LeftOut {
    Outside,
    Small,
    Hidden,
}

struct Mover<'a> {
    /// Columns and rows of the picture that the objects were marked in.
    stored: (u32, u32),
    orientation: Orientation,
    draw: &'a CropDraw,
    size: u32,
}

impl Mover<'_> {
    fn object(&self, marked: &MarkedObject) -> Result<Object, LeftOut> {
        let (width, height) = self.stored;
        // What reaches beyond the picture is not seen anywhere.
        let area = marked.area.grown(0.0, width, height);
        if !(area.width > 0.0 && area.height > 0.0) {
            return Err(LeftOut::Outside);
        }
        let upright = self.orientation.upright(area, width, height);
        let (crop, side) = (self.draw.area, f64::from(self.size));
        let (x, y) = (side / crop.width, side / crop.height);
        let (left, right) = ((upright.x - crop.x) * x, (upright.x + upright.width - crop.x) * x);
        let (left, right) = if self.draw.flip {
            (side - right, side - left)
        } else {
            (left, right)
        };
        let (top, bottom) = ((upright.y - crop.y) * y, (upright.y + upright.height - crop.y) * y);
        // Edges that should be whole numbers may miss them by rounding.
        let whole = |edge: f64| if (edge - edge.round()).abs() < 1e-4 { edge.round() } else { edge };
        let corners = [left, top, right, bottom].map(|edge| whole(edge).clamp(0.0, side) as f32);
        let cut = corners.map(f64::from);
        let (columns, rows) = (cut[2] - cut[0], cut[3] - cut[1]);
        if columns <= 0.0 || rows <= 0.0 {
            return Err(LeftOut::Outside);
        }
        if columns < 1.0 || rows < 1.0 {
            return Err(LeftOut::Small);
        }
        if columns * rows < LEAST_SEEN * (right - left) * (bottom - top) {
            return Err(LeftOut::Hidden);
        }
        Ok(Object {
            class: marked.class,
            corners,
            crowd: marked.crowd,
            mask: marked.mask.as_ref().map(|mask| self.mask(mask, area, cut)).transpose()?,
        })
    }

    /// The mask in the smallest whole pixels around the box `cut` of the view; `area` is the box in the picture.
    fn mask(&self, mask: &crate::coco::RunLength, area: Rect, cut: [f64; 4]) -> Result<ObjectMask, LeftOut> {
        let [left, top, width, height] = area.whole_pixels(self.stored.0, self.stored.1);
        let bitmap = mask.pixels_within([left, top, width, height]);
        let whole = Rect {
            x: left.into(),
            y: top.into(),
            width: width.into(),
            height: height.into(),
        };
        // The same rectangle of the upright picture, and how its pixels lie in the bitmap.
        let upright = self.orientation.upright(whole, self.stored.0, self.stored.1);
        let (start, step_x, step_y) = self.orientation.walk(width as usize, height as usize);
        let around = |from: f64, to: f64| from.floor() as u32..to.ceil() as u32;
        let (columns, rows) = (around(cut[0], cut[2]), around(cut[1], cut[3]));
        let (crop, side) = (self.draw.area, f64::from(self.size));
        let source = |i: u32, from: f64, length: f64, edge: f64, limit: f64| {
            let at = (from + (f64::from(i) + 0.5) * length / side).floor() - edge;
            (at >= 0.0 && at < limit).then_some(at as isize)
        };
        let flipped = |x: u32| if self.draw.flip { self.size - 1 - x } else { x };
        let places: Vec<Option<isize>> = columns
            .clone()
            .map(|x| source(flipped(x), crop.x, crop.width, upright.x, upright.width))
            .collect();
        let mut pixels = Vec::with_capacity(places.len() * rows.len());
        for y in rows.clone() {
            let row = source(y, crop.y, crop.height, upright.y, upright.height);
            let pixel = |place: &Option<isize>| Some(bitmap[(start + (*place)? * step_x + row? * step_y) as usize]);
            pixels.extend(places.iter().map(|place| pixel(place).unwrap_or(0)));
        }
        if pixels.iter().all(|pixel| *pixel == 0) {
            return Err(LeftOut::Hidden);
        }
        let length = |range: &Range<u32>| range.end - range.start;
        Ok(ObjectMask {
            left: columns.start,
            top: rows.start,
            width: length(&columns),
            height: length(&rows),
            pixels,
        })
    }
}
