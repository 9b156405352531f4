//! The eight ways a camera may have been held: how upright pixels lie in the stored picture.

use super::region::Rect;

/// A symmetry of the square: where upright pixel (x, y) is stored.
///
/// With (u, v) = (y, x) if `transpose`, else (x, y), the stored column is `u`, counted from the right if `mirror_x`, and the
/// stored row is `v`, counted from the bottom if `mirror_y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Orientation {
    /// Rows and columns are exchanged.
    pub transpose: bool,
    /// Stored columns run from right to left.
    pub mirror_x: bool,
    /// Stored rows run from bottom to top.
    pub mirror_y: bool,
}

impl Orientation {
    /// From the EXIF orientation tag (0x0112); values outside 1 to 8 count as upright, as in every viewer.
    #[must_use]
    pub fn from_exif(tag: u8) -> Self {
        let (transpose, mirror_x, mirror_y) = match tag {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, false, true),
            7 => (true, true, true),
            8 => (true, true, false),
            _ => (false, false, false),
        };
        Self {
            transpose,
            mirror_x,
            mirror_y,
        }
    }

    /// Whether nothing moves.
    #[must_use]
    pub fn is_upright(self) -> bool {
        self == Self::default()
    }

    /// The same picture seen in a mirror (upright columns reversed).
    #[must_use]
    pub fn flipped(mut self) -> Self {
        if self.transpose {
            self.mirror_y = !self.mirror_y;
        } else {
            self.mirror_x = !self.mirror_x;
        }
        self
    }

    /// Size of the upright picture, given the stored one (or the other way round).
    #[must_use]
    pub fn size(self, width: u32, height: u32) -> (u32, u32) {
        if self.transpose { (height, width) } else { (width, height) }
    }

    /// Where a rectangle of the upright picture lies in the stored one of `width` × `height`.
    #[must_use]
    pub fn stored(self, upright: Rect, width: u32, height: u32) -> Rect {
        let mut r = if self.transpose {
            Rect {
                x: upright.y,
                y: upright.x,
                width: upright.height,
                height: upright.width,
            }
        } else {
            upright
        };
        if self.mirror_x {
            r.x = f64::from(width) - r.x - r.width;
        }
        if self.mirror_y {
            r.y = f64::from(height) - r.y - r.height;
        }
        r
    }

    /// Where a rectangle of the stored picture of `width` × `height` lies in the upright one.
    #[must_use]
    pub fn upright(self, stored: Rect, width: u32, height: u32) -> Rect {
        let mut r = stored;
        if self.mirror_x {
            r.x = f64::from(width) - r.x - r.width;
        }
        if self.mirror_y {
            r.y = f64::from(height) - r.y - r.height;
        }
        if self.transpose {
            r = Rect {
                x: r.y,
                y: r.x,
                width: r.height,
                height: r.width,
            };
        }
        r
    }

    /// Start and steps (in pixels) of a walk over the stored picture of `width` × `height` in upright row-major order: upright
    /// pixel (x, y) is stored at `start + x × step_x + y × step_y`.
    #[must_use]
    pub fn walk(self, width: usize, height: usize) -> (isize, isize, isize) {
        let (w, h) = (width as isize, height as isize);
        let (start_x, dx) = if self.mirror_x { (w - 1, -1) } else { (0, 1) };
        let (start_y, dy) = if self.mirror_y { ((h - 1) * w, -w) } else { (0, w) };
        let start = start_x + start_y;
        if self.transpose { (start, dy, dx) } else { (start, dx, dy) }
    }
}

/// Turns stored RGB pixels upright.
pub(super) fn upright(orientation: Orientation, stored: &[u8], width: u32, height: u32, out: &mut Vec<u8>) {
    let (w, h) = orientation.size(width, height);
    let (start, step_x, step_y) = orientation.walk(width as usize, height as usize);
    out.clear();
    out.reserve(stored.len());
    for y in 0..h as isize {
        let row = start + y * step_y;
        for x in 0..w as isize {
            let at = 3 * (row + x * step_x) as usize;
            out.extend_from_slice(&stored[at..at + 3]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_eight_agree_with_the_image_crate() {
        let stored: Vec<u8> = (0..5 * 3 * 3).map(|v| v as u8).collect();
        for tag in 0..=9u8 {
            let orientation = Orientation::from_exif(tag);
            let mut theirs = image::DynamicImage::ImageRgb8(image::RgbImage::from_raw(5, 3, stored.clone()).unwrap());
            if let Some(o) = image::metadata::Orientation::from_exif(tag) {
                theirs.apply_orientation(o);
            }
            let mut ours = vec![];
            upright(orientation, &stored, 5, 3, &mut ours);
            assert_eq!(orientation.size(5, 3), (theirs.width(), theirs.height()), "tag {tag}");
            assert_eq!(ours, theirs.into_bytes(), "tag {tag}");
        }
    }

    #[test]
    fn a_rectangle_maps_to_the_pixels_it_covers() {
        let (w, h) = (7u32, 4u32);
        for tag in 1..=8 {
            let o = Orientation::from_exif(tag);
            let (uw, uh) = o.size(w, h);
            let (start, sx, sy) = o.walk(w as usize, h as usize);
            let rect = Rect {
                x: 1.0,
                y: 2.0,
                width: f64::from(uw) - 3.0,
                height: f64::from(uh) - 2.0,
            };
            let stored = o.stored(rect, w, h);
            for y in 2..uh as isize {
                for x in 1..uw as isize - 2 {
                    let at = start + x * sx + y * sy;
                    let (px, py) = ((at % w as isize) as f64, (at / w as isize) as f64);
                    assert!(px >= stored.x && px < stored.x + stored.width, "tag {tag}");
                    assert!(py >= stored.y && py < stored.y + stored.height, "tag {tag}");
                }
            }
            assert_eq!(stored.width * stored.height, rect.width * rect.height);
            assert_eq!(o.upright(stored, w, h), rect, "tag {tag}");
        }
    }

    #[test]
    fn flipping_twice_is_nothing_and_once_reverses_rows() {
        for tag in 1..=8 {
            let o = Orientation::from_exif(tag);
            assert_eq!(o.flipped().flipped(), o);
            let (w, h) = (4usize, 3usize);
            let (start, sx, sy) = o.walk(w, h);
            let (fstart, fsx, fsy) = o.flipped().walk(w, h);
            let (uw, uh) = o.size(w as u32, h as u32);
            for y in 0..uh as isize {
                for x in 0..uw as isize {
                    assert_eq!(fstart + x * fsx + y * fsy, start + (uw as isize - 1 - x) * sx + y * sy);
                }
            }
        }
    }
}
