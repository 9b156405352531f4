//! Rectangles, and the part of a stored picture that a buffer holds.

use crate::types::Image;

/// A rectangle with fractional corners, pixels from the top left.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rect {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Columns.
    pub width: f64,
    /// Rows.
    pub height: f64,
}

impl Rect {
    /// The smallest rectangle that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        Self {
            x,
            y,
            width: (self.x + self.width).max(other.x + other.width) - x,
            height: (self.y + self.height).max(other.y + other.height) - y,
        }
    }

    /// Grown by `by` on all sides but not past a picture of `width` × `height`.
    #[must_use]
    pub fn grown(self, by: f64, width: u32, height: u32) -> Self {
        let (x, y) = ((self.x - by).max(0.0), (self.y - by).max(0.0));
        Self {
            x,
            y,
            width: (self.x + self.width + by).min(f64::from(width)) - x,
            height: (self.y + self.height + by).min(f64::from(height)) - y,
        }
    }

    /// Left, top, columns and rows of the whole pixels of a picture of `width` × `height` that it touches.
    #[must_use]
    pub fn whole_pixels(self, width: u32, height: u32) -> [u32; 4] {
        let PixelRect { left, top, width, height } = self.pixels(1, width, height);
        [left, top, width, height]
    }

    /// The pixels of the picture reduced by `denom` that it touches.
    pub(crate) fn pixels(self, denom: u32, width: u32, height: u32) -> PixelRect {
        let d = f64::from(denom);
        // Corners that should be whole numbers may miss them by rounding; a thousandth of a pixel is no touch.
        let edge = |v: f64| if (v - v.round()).abs() < 1e-3 { v.round() } else { v };
        let left = (edge(self.x / d).floor().max(0.0) as u32).min(width.div_ceil(denom) - 1);
        let top = (edge(self.y / d).floor().max(0.0) as u32).min(height.div_ceil(denom) - 1);
        let right = (edge((self.x + self.width) / d).ceil() as u32).clamp(left + 1, width.div_ceil(denom));
        let bottom = (edge((self.y + self.height) / d).ceil() as u32).clamp(top + 1, height.div_ceil(denom));
        PixelRect {
            left,
            top,
            width: right - left,
            height: bottom - top,
        }
    }
}

/// A rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PixelRect {
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl PixelRect {
    /// All of a picture.
    pub(crate) fn whole(width: u32, height: u32) -> Self {
        Self {
            left: 0,
            top: 0,
            width,
            height,
        }
    }

    pub(crate) fn right(self) -> u32 {
        self.left + self.width
    }

    pub(crate) fn bottom(self) -> u32 {
        self.top + self.height
    }

    /// Bytes of it as RGB.
    pub(crate) fn rgb_bytes(self) -> usize {
        3 * self.width as usize * self.height as usize
    }
}

/// Which part of the (reduced) stored picture a buffer holds.
pub(crate) type Placed = PixelRect;

/// A decoded part of a stored picture, RGB row-major; borrowed from its [`Decoder`](super::Decoder).
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    pub(crate) pixels: &'a [u8],
    pub(crate) placed: Placed,
    pub(crate) denom: u32,
    /// Size of the whole stored picture, not reduced.
    pub(crate) stored: (u32, u32),
}

impl<'a> Window<'a> {
    /// A whole upright picture as a window on itself.
    #[must_use]
    pub fn whole(image: &'a Image) -> Self {
        Self {
            pixels: &image.pixels,
            placed: PixelRect::whole(image.width, image.height),
            denom: 1,
            stored: (image.width, image.height),
        }
    }

    /// The colour of a pixel of the stored picture (reduced), if the window holds it.
    #[must_use]
    pub fn pixel(&self, column: u32, row: u32) -> Option<&'a [u8]> {
        let (x, y) = (column.checked_sub(self.placed.left)?, row.checked_sub(self.placed.top)?);
        if x >= self.placed.width || y >= self.placed.height {
            return None;
        }
        let at = 3 * (y as usize * self.placed.width as usize + x as usize);
        self.pixels.get(at..at + 3)
    }
}
