//! Polygons as masks. COCO's areas and overlaps were computed by one program, whose masks differ from any textbook's by a pixel here and there; this gives
//! the same pixels: the outline is drawn on a grid five times as fine, and of each column's middle the rows at which it is crossed are rounded up.

use super::run_length::RunLength;

/// Fine steps of a pixel.
const FINE: f64 = 5.0;

/// The mask of `outline`, corners x, y, x, y … in pixels, in a picture of `height` × `width`. Parts outside are cut off.
///
/// # Panics
/// `outline` holds an odd number of values.
#[must_use]
pub fn rasterise(outline: &[f64], height: u32, width: u32) -> RunLength {
    let fine = |value: f64| (FINE * value + 0.5) as i32;
    assert!(outline.len().is_multiple_of(2), "corners have two values each");
    let corners: Vec<(i32, i32)> = outline.chunks_exact(2).map(|c| (fine(c[0]), fine(c[1]))).collect();
    let next = corners.iter().cycle().skip(1);
    let mut points = Vec::new();
    for (&from, &to) in corners.iter().zip(next) {
        draw_line(from, to, &mut points);
    }
    let changes = points.windows(2).filter_map(|pair| crossing(pair[0], pair[1], height, width));
    RunLength::of_changes(height, width, changes.collect())
}

/// Points of the fine grid from one corner to the next, one for each step of the longer side. The slope is taken from the same end whichever way the line
/// is gone, so that two objects with a common edge leave no gap.
fn draw_line(from: (i32, i32), to: (i32, i32), points: &mut Vec<(i32, i32)>) {
    let (across, down) = ((to.0 - from.0).abs(), (to.1 - from.1).abs());
    if (across, down) == (0, 0) {
        points.push(from);
        return;
    }
    let flat = across >= down;
    let backwards = if flat { from.0 > to.0 } else { from.1 > to.1 };
    let (low, high) = if backwards { (to, from) } else { (from, to) };
    let long = across.max(down);
    let slope = if flat {
        f64::from(high.1 - low.1) / f64::from(across)
    } else {
        f64::from(high.0 - low.0) / f64::from(down)
    };
    for step in 0..=long {
        let along = if backwards { long - step } else { step };
        let beside = |start: i32| (f64::from(start) + slope * f64::from(along) + 0.5) as i32;
        points.push(if flat {
            (along + low.0, beside(low.1))
        } else {
            (beside(low.0), along + low.1)
        });
    }
}

/// Where an outline that goes from one fine point to the next crosses the middle of a column of pixels: the place down the columns.
fn crossing(from: (i32, i32), to: (i32, i32), height: u32, width: u32) -> Option<u32> {
    if from.0 == to.0 {
        return None;
    }
    let pixels = |fine: i32| (f64::from(fine) + 0.5) / FINE - 0.5;
    let column = pixels(if to.0 < from.0 { to.0 } else { to.0 - 1 });
    if column.fract() != 0.0 || column < 0.0 || column > f64::from(width) - 1.0 {
        return None;
    }
    let row = pixels(to.1.min(from.1)).clamp(0.0, f64::from(height)).ceil();
    Some(column as u32 * height + row as u32)
}
