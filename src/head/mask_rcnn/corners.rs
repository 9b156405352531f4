//! Boxes as corners, in f32 and in the order of torchvision's operations: what is compared with a threshold must be the same number.

/// A box: left, top, right, bottom in pixels.
pub type Corners = [f32; 4];

/// Its area in pixels.
#[must_use]
pub fn area([left, top, right, bottom]: Corners) -> f32 {
    (right - left) * (bottom - top)
}

/// Intersection over union of two boxes whose areas are known.
#[inline]
pub(super) fn overlap_with_areas(a: Corners, b: Corners, area_a: f32, area_b: f32) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let common = width * height;
    common / (area_a + area_b - common)
}

/// Intersection over union.
#[must_use]
pub fn overlap(a: Corners, b: Corners) -> f32 {
    overlap_with_areas(a, b, area(a), area(b))
}

/// What of a box lies in a picture of `size` (width, height in pixels).
#[must_use]
pub fn clipped([left, top, right, bottom]: Corners, [width, height]: [f32; 2]) -> Corners {
    // NaN stays NaN, so that `is_at_least` refuses it.
    let within = |value: f32, most: f32| if value < 0.0 { 0.0 } else if value > most { most } else { value };
    [within(left, width), within(top, height), within(right, width), within(bottom, height)]
}

/// Whether both sides are at least that long; false for what is no number.
#[must_use]
pub fn is_at_least([left, top, right, bottom]: Corners, side: f32) -> bool {
    right - left >= side && bottom - top >= side
}
