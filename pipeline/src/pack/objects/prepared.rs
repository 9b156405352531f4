//! The objects of one image: checked against it, and changed as the image was.

use std::collections::BTreeMap;

use super::picture::Annotated;
use super::{Dropped, drop_one};
use crate::coco::{Annotation, RunLength, Segmentation, box_of};
use crate::decode::{Header, MemberObject, ObjectMember, Orientation, Rect, lying};
use crate::pack::became::Became;
use crate::pack::report::Refusal;

/// Objects ready for the shard.
pub(in crate::pack) struct PreparedObjects {
    /// JSON.
    pub(in crate::pack) bytes: Vec<u8>,
    /// Objects and crowds of each class.
    pub(in crate::pack) classes: BTreeMap<u32, [u64; 2]>,
    /// Those whose pixels are known.
    pub(in crate::pack) masks: u64,
    /// Pixels of the boxes around those.
    pub(in crate::pack) mask_pixels: u64,
    pub(in crate::pack) clipped: u64,
    pub(in crate::pack) masks_cut: u64,
    /// Annotations of the image that were left out before.
    pub(in crate::pack) lost: u64,
    pub(in crate::pack) dropped: Dropped,
}

impl PreparedObjects {
    /// Whether the image has no object.
    pub(in crate::pack) fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }
}

/// Changes the objects of an image with this header as the image was.
pub(in crate::pack) fn prepare(picture: &Annotated, head: &Header, became: &Became, name: &str) -> Result<PreparedObjects, Refusal> {
    let orientation = lying((picture.width, picture.height), head)?;
    let change = Change {
        stored: (picture.width, picture.height),
        orientation,
        became,
    };
    let (width, height) = change.size();
    let mut prepared = PreparedObjects {
        bytes: vec![],
        classes: BTreeMap::new(),
        masks: 0,
        mask_pixels: 0,
        clipped: 0,
        masks_cut: 0,
        lost: picture.lost,
        dropped: Dropped::default(),
    };
    let mut member = ObjectMember {
        width: Some(width),
        height: Some(height),
        image_id: Some(picture.id),
        annotations: vec![],
    };
    for (class, annotation) in &picture.annotations {
        match change.object(annotation) {
            Ok(object) => {
                prepared.clipped += u64::from(object.clipped);
                prepared.masks_cut += u64::from(object.mask_cut);
                if object.mask.is_some() {
                    prepared.masks += 1;
                    let [.., columns, rows] = object.area.whole_pixels(width, height);
                    prepared.mask_pixels += u64::from(columns) * u64::from(rows);
                }
                let crowd = annotation.iscrowd;
                prepared.classes.entry(*class).or_default()[usize::from(crowd)] += 1;
                let Rect { x, y, width, height } = object.area;
                member.annotations.push(MemberObject {
                    category: Some(*class),
                    category_id: Some(annotation.category_id),
                    bbox: Some([x, y, width, height]),
                    area: Some(object.pixels),
                    segmentation: object.mask.as_ref().map(Segmentation::of),
                    iscrowd: crowd,
                });
            }
            Err((reason, detail)) => drop_one(&mut prepared.dropped, reason, || {
                format!("{name}: annotation {}: {detail}", annotation.id)
            }),
        }
    }
    prepared.bytes = serde_json::to_vec(&member).expect("plain data serialises");
    Ok(prepared)
}

/// An object as it is packed.
struct Changed {
    area: Rect,
    mask: Option<RunLength>,
    pixels: f64,
    clipped: bool,
    mask_cut: bool,
}

/// From the picture that was annotated to the one that is packed.
struct Change<'a> {
    stored: (u32, u32),
    orientation: Orientation,
    became: &'a Became,
}

impl Change<'_> {
    /// Columns and rows of the picture in which the packed objects lie.
    fn size(&self) -> (u32, u32) {
        match (self.became.as_it_was, self.became.square) {
            (true, _) => self.stored,
            (false, Some(side)) => (side, side),
            (false, None) => self.became.shrunk,
        }
    }

    /// Where the shrunk picture lies in the packed one.
    fn corner(&self) -> (u32, u32) {
        let (width, height) = self.became.shrunk;
        self.became.square.map_or((0, 0), |side| ((side - width) / 2, (side - height) / 2))
    }

    fn object(&self, annotation: &Annotation) -> Result<Changed, (&'static str, String)> {
        let (width, height) = self.stored;
        if annotation.iscrowd > 1 {
            return Err(("bad_crowd", format!("iscrowd {}: 0 or 1", annotation.iscrowd)));
        }
        // An empty list of polygons is how files of boxes say that there are none.
        let drawn = annotation.segmentation.as_ref().filter(|s| !s.is_empty());
        let mask = drawn.map(|s| s.mask(height, width)).transpose().map_err(|e| ("bad_mask", e))?;
        let sides = match (annotation.bbox, &mask) {
            (None, Some(mask)) => mask.bounds(),
            (bbox, _) => box_of(bbox).map_err(|e| ("bad_box", e))?,
        };
        let told = format!("bbox {sides:?} in a picture of {width}×{height} pixels");
        let [x, y, box_width, box_height] = sides;
        if box_width <= 0.0 || box_height <= 0.0 {
            return Err(("zero_area", told));
        }
        let whole = Rect {
            x,
            y,
            width: box_width,
            height: box_height,
        };
        let area = whole.grown(0.0, width, height);
        if area.width <= 0.0 || area.height <= 0.0 {
            return Err(("outside", told));
        }
        // Boxes are often written with a digit or two: what is less than a hundredth of a pixel is no difference.
        let clipped = whole.width - area.width > 0.01 || whole.height - area.height > 0.01;
        let all = mask.as_ref().map_or(0, RunLength::area);
        let cut = mask.map(|mask| (mask.pixels_within(area.whole_pixels(width, height)), area));
        let inside = cut.as_ref().map_or(0, |(pixels, _)| pixels.iter().map(|p| u64::from(*p)).sum());
        if cut.is_some() && inside == 0 {
            return Err(("empty_mask", format!("no pixel of its mask lies in its box; {told}")));
        }
        let changed = self.area(area);
        let mask = cut.map(|(pixels, area)| self.mask(&pixels, area, changed));
        let scale = changed.width * changed.height / (area.width * area.height);
        if mask.as_ref().is_some_and(|mask| mask.area() == 0) {
            return Err(("empty_mask", format!("no pixel of its mask is left in the shrunk picture; {told}")));
        }
        let of_shape = mask.as_ref().map_or(changed.width * changed.height, |mask| mask.area() as f64);
        Ok(Changed {
            area: changed,
            mask,
            pixels: annotation
                .area
                .filter(|area| area.is_finite() && *area >= 0.0)
                .map_or(of_shape, |area| area * scale),
            clipped,
            mask_cut: inside < all,
        })
    }

    /// Where a box lies in the packed picture.
    fn area(&self, area: Rect) -> Rect {
        if self.became.as_it_was {
            return area;
        }
        let (width, height) = self.orientation.size(self.stored.0, self.stored.1);
        let upright = self.orientation.upright(area, self.stored.0, self.stored.1);
        let (left, top) = self.corner();
        let (x, y) = (
            f64::from(self.became.shrunk.0) / f64::from(width),
            f64::from(self.became.shrunk.1) / f64::from(height),
        );
        Rect {
            x: upright.x * x + f64::from(left),
            y: upright.y * y + f64::from(top),
            width: upright.width * x,
            height: upright.height * y,
        }
    }

    /// The mask in the packed picture, of the pixels around the box `area` and where that box lies now: each pixel is that in which its middle lies, as with
    /// label maps.
    fn mask(&self, pixels: &[u8], area: Rect, changed: Rect) -> RunLength {
        let part = area.whole_pixels(self.stored.0, self.stored.1);
        if self.became.as_it_was {
            return RunLength::of_part(self.stored.1, self.stored.0, part, pixels);
        }
        let whole = Rect {
            x: part[0].into(),
            y: part[1].into(),
            width: part[2].into(),
            height: part[3].into(),
        };
        let upright = self.orientation.upright(whole, self.stored.0, self.stored.1);
        let (start, step_x, step_y) = self.orientation.walk(part[2] as usize, part[3] as usize);
        let size = self.orientation.size(self.stored.0, self.stored.1);
        let ((left, top), shrunk) = (self.corner(), self.became.shrunk);
        let source = |at: u32, corner: u32, from: u32, to: u32, first: f64, limit: f64| {
            let at = at.checked_sub(corner).filter(|at| *at < to)?;
            let at = (u64::from(2 * at + 1) * u64::from(from) / u64::from(2 * to)) as f64 - first;
            (at >= 0.0 && at < limit).then_some(at as isize)
        };
        let (width, height) = self.size();
        let target = changed.whole_pixels(width, height);
        let mut out = Vec::with_capacity(target[2] as usize * target[3] as usize);
        for y in target[1]..target[1] + target[3] {
            let row = source(y, top, size.1, shrunk.1, upright.y, upright.height);
            out.extend((target[0]..target[0] + target[2]).map(|x| {
                let column = source(x, left, size.0, shrunk.0, upright.x, upright.width);
                column
                    .zip(row)
                    .map_or(0, |(x, y)| pixels[(start + x * step_x + y * step_y) as usize])
            }));
        }
        RunLength::of_part(height, width, target, &out)
    }
}
