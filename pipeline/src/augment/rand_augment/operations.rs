//! The operations, in Pillow's arithmetic.

/// What lies outside of a picture: ImageNet's mean colour.
const OUTSIDE: [u8; 3] = [124, 116, 104];

/// The largest magnitude.
pub(super) const MOST: f64 = 10.0;

/// How many operations there are.
pub(super) const OPERATIONS: usize = 15;

/// One operation with its argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Operation {
    /// Stretches each colour to all levels.
    AutoContrast,
    /// Makes the levels of each colour equally frequent.
    Equalize,
    Invert,
    /// Degrees, counter-clockwise.
    Rotate(f64),
    /// Bits that are kept.
    Posterize(u32),
    /// Levels from this one on are inverted.
    Solarise(u32),
    /// What is added to levels below 128.
    SolariseAdd(u32),
    /// Factor of the difference to grey.
    Colour(f32),
    /// Factor of the difference to the mean grey.
    Contrast(f32),
    Brightness(f32),
    /// Factor of the difference to a smoothed picture.
    Sharpness(f32),
    ShearX(f64),
    ShearY(f64),
    /// Share of the side.
    TranslateX(f64),
    TranslateY(f64),
}

impl Operation {
    /// Number `which` of the 15 at a magnitude of 0 to 10. Those with a sign have it `negative`.
    pub(super) fn at(which: usize, magnitude: f64, negative: bool) -> Self {
        let share = magnitude / MOST;
        let signed = |value: f64| if negative { -value } else { value };
        // A factor of 0.1 is the least that is left of a picture.
        let factor = (1.0 + signed(0.9 * share)).max(0.1) as f32;
        match which {
            0 => Self::AutoContrast,
            1 => Self::Equalize,
            2 => Self::Invert,
            3 => Self::Rotate(signed(30.0 * share)),
            // At the largest magnitude 0 bits would be left, which Pillow refuses.
            4 => Self::Posterize((4 - (4.0 * share) as u32).max(1)),
            5 => Self::Solarise(256 - (256.0 * share) as u32),
            6 => Self::SolariseAdd(((110.0 * share) as u32).min(128)),
            7 => Self::Colour(factor),
            8 => Self::Contrast(factor),
            9 => Self::Brightness(factor),
            10 => Self::Sharpness(factor),
            11 => Self::ShearX(signed(0.3 * share)),
            12 => Self::ShearY(signed(0.3 * share)),
            13 => Self::TranslateX(signed(0.45 * share)),
            _ => Self::TranslateY(signed(0.45 * share)),
        }
    }

    /// Changes a planar 3×`side`×`side` view; `copy` is scratch.
    pub(super) fn apply(self, view: &mut [u8], side: usize, copy: &mut Vec<u8>) {
        let planes = |view: &mut [u8], change: fn(&mut [u8])| view.chunks_exact_mut(side * side).for_each(change);
        let levels = |view: &mut [u8], change: &dyn Fn(u8) -> u8| {
            let table: [u8; 256] = std::array::from_fn(|level| change(level as u8));
            look_up(view, &table);
        };
        match self {
            Self::AutoContrast => planes(view, auto_contrast),
            Self::Equalize => planes(view, equalize),
            Self::Invert => levels(view, &|v| 255 - v),
            Self::Posterize(bits) => levels(view, &|v| v & !((1u16 << (8 - bits)) - 1) as u8),
            Self::Solarise(from) => levels(view, &|v| if u32::from(v) < from { v } else { 255 - v }),
            Self::SolariseAdd(add) => levels(view, &|v| if v < 128 { v.saturating_add(add as u8) } else { v }),
            Self::Brightness(factor) => levels(view, &|v| blend(0, v, factor)),
            Self::Contrast(factor) => {
                let pixels = side * side;
                let sum: u64 = (0..pixels).map(|i| u64::from(luma(view, i))).sum();
                let mean = (sum as f64 / pixels as f64 + 0.5) as u8;
                levels(view, &|v| blend(mean, v, factor));
            }
            Self::Colour(factor) => {
                let pixels = side * side;
                for i in 0..pixels {
                    let grey = luma(view, i);
                    for at in [i, i + pixels, i + 2 * pixels] {
                        view[at] = blend(grey, view[at], factor);
                    }
                }
            }
            Self::Sharpness(factor) => sharpen(factor, view, side, copy),
            Self::Rotate(degrees) => {
                // The sine and cosine of Pillow's matrix have 15 digits; the middle of the picture stays.
                let digits = |x: f64| (x * 1e15).round_ties_even() / 1e15;
                let angle = -degrees.to_radians();
                let (cos, sin, middle) = (digits(angle.cos()), digits(angle.sin()), side as f64 / 2.0);
                let shift = |a: f64, b: f64| a * -middle + b * -middle + middle;
                affine([cos, sin, shift(cos, sin), -sin, cos, shift(-sin, cos)], view, side, copy);
            }
            Self::ShearX(factor) => affine([1.0, factor, 0.0, 0.0, 1.0, 0.0], view, side, copy),
            Self::ShearY(factor) => affine([1.0, 0.0, 0.0, factor, 1.0, 0.0], view, side, copy),
            Self::TranslateX(share) => affine([1.0, 0.0, share * side as f64, 0.0, 1.0, 0.0], view, side, copy),
            Self::TranslateY(share) => affine([1.0, 0.0, 0.0, 0.0, 1.0, share * side as f64], view, side, copy),
        }
    }
}

fn look_up(levels: &mut [u8], table: &[u8; 256]) {
    levels.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
}

/// From `from` towards `to` by a factor, and beyond it; truncated.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let (from, to) = (f32::from(from), f32::from(to));
    // A cast cuts at 0 and 255.
    (from + factor * (to - from)) as u8
}

/// Grey of pixel `i` of a planar view.
fn luma(view: &[u8], i: usize) -> u8 {
    let pixels = view.len() / 3;
    let [r, g, b] = [0, 1, 2].map(|c| u32::from(view[i + c * pixels]));
    ((19_595 * r + 38_470 * g + 7_471 * b + 0x8000) >> 16) as u8
}

fn auto_contrast(plane: &mut [u8]) {
    let (Some(&low), Some(&high)) = (plane.iter().min(), plane.iter().max()) else {
        return;
    };
    if low < high {
        let scale = 255.0 / f64::from(high - low);
        let offset = -f64::from(low) * scale;
        look_up(plane, &std::array::from_fn(|level| (level as f64 * scale + offset) as u8));
    }
}

fn equalize(plane: &mut [u8]) {
    let mut counts = [0usize; 256];
    plane.iter().for_each(|v| counts[usize::from(*v)] += 1);
    let last = counts.iter().rev().find(|count| **count > 0).copied().unwrap_or(0);
    let step = (plane.len() - last) / 255;
    if step > 0 {
        let mut below = step / 2;
        let table = counts.map(|count| {
            let level = (below / step).min(255) as u8;
            below += count;
            level
        });
        look_up(plane, &table);
    }
}

/// Away from a picture that is smoothed by ones around a 5, the border left out.
fn sharpen(factor: f32, view: &mut [u8], side: usize, copy: &mut Vec<u8>) {
    copy.clear();
    copy.extend_from_slice(view);
    let (edge, centre) = (1.0f32 / 13.0, 5.0f32 / 13.0);
    for (plane, old) in view.chunks_exact_mut(side * side).zip(copy.chunks_exact(side * side)) {
        for y in 0..side {
            for x in 0..side {
                let at = y * side + x;
                let inside = (1..side.saturating_sub(1)).contains(&y) && (1..side.saturating_sub(1)).contains(&x);
                let smooth = if inside {
                    let mut sum = 0.5f32;
                    for row in [at - side, at, at + side] {
                        for (near, weight) in [(row - 1, edge), (row, if row == at { centre } else { edge }), (row + 1, edge)] {
                            sum += f32::from(old[near]) * weight;
                        }
                    }
                    sum as u8
                } else {
                    old[at]
                };
                plane[at] = blend(smooth, old[at], factor);
            }
        }
    }
}

/// The cubic through four neighbours, at `d` between the second and the third. Pillow's geometry takes a = −1, its resizing −0.5.
fn cubic([a, b, c, d]: [f64; 4], at: f64) -> f64 {
    let (p1, p2, p3, p4) = (b, -a + c, 2.0 * (a - b) + c - d, -a + b - c + d);
    p1 + at * (p2 + at * (p3 + at * p4))
}

/// Each pixel from where its centre comes from by the matrix [a, b, c; d, e, f].
fn affine([a, b, c, d, e, f]: [f64; 6], view: &mut [u8], side: usize, copy: &mut Vec<u8>) {
    copy.clear();
    copy.extend_from_slice(view);
    let pixels = side * side;
    let (size, last) = (side as f64, side as i64 - 1);
    for y in 0..side {
        for x in 0..side {
            let at = y * side + x;
            let (column, row) = (x as f64 + 0.5, y as f64 + 0.5);
            let (from_x, from_y) = (a * column + b * row + c, d * column + e * row + f);
            if !(0.0..size).contains(&from_x) || !(0.0..size).contains(&from_y) {
                (0..3).for_each(|plane| view[plane * pixels + at] = OUTSIDE[plane]);
                continue;
            }
            let (from_x, from_y) = (from_x - 0.5, from_y - 0.5);
            let (left, top) = (from_x.floor(), from_y.floor());
            let near = |start: f64| [-1, 0, 1, 2].map(|n| (start as i64 + n).clamp(0, last) as usize);
            let (columns, rows) = (near(left), near(top));
            let (beyond_left, beyond_top) = (from_x - left, from_y - top);
            for plane in 0..3 {
                let old = &copy[plane * pixels..][..pixels];
                // At 0 the cubic is its second value: shears and shifts take 4 values of 16.
                let across = |row: usize| match beyond_left {
                    0.0 => f64::from(old[row * side + columns[1]]),
                    _ => cubic(columns.map(|column| f64::from(old[row * side + column])), beyond_left),
                };
                let level = match beyond_top {
                    0.0 => across(rows[1]),
                    _ => cubic(rows.map(across), beyond_top),
                };
                // A cast cuts at 0 and 255.
                view[plane * pixels + at] = level as u8;
            }
        }
    }
}
