//! Boxes as corners, in f32 and in the order of torchvision's operations: what is compared with a threshold must be the same number.

/// A box: left, top, right, bottom in pixels.
pub type Corners = [f32; 4];

/// Its area in pixels.
#[must_use]
pub fn area([left, top, right, bottom]: Corners) -> f32 {
    (right - left) * (bottom - top)
}

/// Intersection over union.
#[must_use]
pub fn overlap(a: Corners, b: Corners) -> f32 {
    let mut overlaps = [0.0];
    Columns::new(&[b]).overlaps(a, &mut overlaps);
    overlaps[0]
}

/// Boxes side by side, so that one is compared with many at a time.
#[derive(Debug, Default)]
pub(super) struct Columns {
    left: Vec<f32>,
    top: Vec<f32>,
    right: Vec<f32>,
    bottom: Vec<f32>,
    area: Vec<f32>,
}

impl Columns {
    /// Of these boxes, in their order.
    pub(super) fn new(boxes: &[Corners]) -> Self {
        let mut columns = Self::default();
        boxes.iter().for_each(|&corners| columns.push(corners));
        columns
    }

    /// One more box.
    pub(super) fn push(&mut self, corners: Corners) {
        let [left, top, right, bottom] = corners;
        self.left.push(left);
        self.top.push(top);
        self.right.push(right);
        self.bottom.push(bottom);
        self.area.push(area(corners));
    }

    /// The box of that number.
    pub(super) fn get(&self, n: usize) -> Corners {
        [self.left[n], self.top[n], self.right[n], self.bottom[n]]
    }

    /// Intersection over union of `with` and each of the last `overlaps.len()` boxes.
    pub(super) fn overlaps(&self, with: Corners, overlaps: &mut [f32]) {
        let [left, top, right, bottom] = with;
        let own = area(with);
        let rest = self.left.len() - overlaps.len()..;
        let starts = self.left[rest.clone()].iter().zip(&self.top[rest.clone()]);
        let ends = self.right[rest.clone()].iter().zip(&self.bottom[rest.clone()]);
        let columns = starts.zip(ends).zip(&self.area[rest]);
        for (overlap, (((l, t), (r, b)), area)) in overlaps.iter_mut().zip(columns) {
            let width = (right.min(*r) - left.max(*l)).max(0.0);
            let height = (bottom.min(*b) - top.max(*t)).max(0.0);
            let common = width * height;
            *overlap = common / (own + area - common);
        }
    }
}

/// What of a box lies in a picture of `size` (width, height in pixels).
#[must_use]
pub fn clipped([left, top, right, bottom]: Corners, [width, height]: [f32; 2]) -> Corners {
    // NaN stays NaN, so that `is_at_least` refuses it.
    let within = |value: f32, most: f32| {
        if value < 0.0 {
            0.0
        } else if value > most {
            most
        } else {
            value
        }
    };
    [
        within(left, width),
        within(top, height),
        within(right, width),
        within(bottom, height),
    ]
}

/// Whether both sides are at least that long; false for what is no number.
#[must_use]
pub(super) fn is_at_least([left, top, right, bottom]: Corners, side: f32) -> bool {
    right - left >= side && bottom - top >= side
}
