//! The label map of a view: cut by the view's own crop and flip, each pixel by the nearest one of the map.

use crate::decode::{LabelMap, Orientation};
use crate::types::UNLABELLED;

use super::crop::CropDraw;

/// Cuts `draw` out of a map that lies in its file by `orientation`, and writes the class of each of `size` × `size` pixels, row-major: that of the map's
/// pixel in which the middle of the view's pixel lies, and [`UNLABELLED`] beyond the picture.
pub fn label_view(map: &LabelMap, orientation: Orientation, draw: &CropDraw, size: u32, out: &mut Vec<i16>) {
    let (width, height) = orientation.size(map.width, map.height);
    let (start, step_x, step_y) = orientation.walk(map.width as usize, map.height as usize);
    let nearest = |from: f64, length: f64, i: u32, limit: u32| {
        let middle = from + (f64::from(i) + 0.5) * length / f64::from(size);
        (middle.floor().max(0.0) as u32).min(limit - 1) as isize
    };
    let area = draw.area;
    let column = |x: u32| nearest(area.x, area.width, if draw.flip { size - 1 - x } else { x }, width);
    let columns: Vec<isize> = (0..size).map(|x| column(x) * step_x).collect();
    let inside = draw.inside(width, height, size);
    let across = inside.columns(draw.flip, size);
    let across = across.start as usize..across.end as usize;
    out.clear();
    out.reserve(columns.len() * columns.len());
    for y in 0..size {
        if !inside.rows.contains(&y) {
            out.resize(out.len() + columns.len(), UNLABELLED);
            continue;
        }
        let row = start + nearest(area.y, area.height, y, height) * step_y;
        out.resize(out.len() + across.start, UNLABELLED);
        out.extend(columns[across.clone()].iter().map(|column| map.classes[(row + column) as usize]));
        out.resize(out.len() + columns.len() - across.end, UNLABELLED);
    }
}
