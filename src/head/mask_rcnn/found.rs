//! What is found in a picture, and its masks at the size of the picture.

use splitmask_pipeline::types::{Object, ObjectMask};
use tch::{Kind, Tensor};

use super::corners::{Corners, clipped, is_at_least};
use super::on_host::{by_picture, rows_of};
use super::regions::CODER;
use super::roi_align::{Region, sent};
use super::rules::RegionRules;
use super::suppression::suppressed;

/// Shorter boxes, in pixels, are no objects.
const SHORTEST: f32 = 1e-2;

/// Objects found in a picture, the surest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Boxes in pixels of the canvas.
    pub boxes: Vec<Corners>,
    /// Classes, from 1.
    pub labels: Vec<i64>,
    /// Probabilities of the classes.
    pub scores: Vec<f32>,
    /// Side M of a mask in cells.
    pub side: usize,
    /// Whether the network's answers were numbers.
    pub is_finite: bool,
    /// M×M probabilities of each object's cells, row by row, one object behind the other.
    pub masks: Vec<f32>,
}

impl Found {
    /// Cells of the mask of one object.
    #[must_use]
    pub fn mask(&self, object: usize) -> &[f32] {
        let cells = self.side * self.side;
        &self.masks[object * cells..(object + 1) * cells]
    }

    /// One object in a picture of `size` (columns, rows) whose pixels are `times` as many as the canvas's: its mask where its probability is above a half.
    #[must_use]
    pub fn object(&self, object: usize, times: [f32; 2], size: [u32; 2]) -> Object {
        let [left, top, right, bottom] = self.boxes[object];
        let corners = [left * times[0], top * times[1], right * times[0], bottom * times[1]];
        let part = pasted(self.mask(object), self.side, corners, size.map(|side| side as usize));
        Object {
            class: (self.labels[object] - 1) as u32,
            corners,
            crowd: false,
            mask: Some(ObjectMask {
                left: part.left as u32,
                top: part.top as u32,
                width: part.width as u32,
                height: part.height as u32,
                pixels: part.cells.iter().map(|&share| u8::from(share > 0.5)).collect(),
            }),
        }
    }
}

/// Boxes, classes and probabilities of logits R×K and steps R×K×4 of regions, of each picture. Decoded on the device; one copy brings all to the host.
pub(super) fn found_boxes(logits: &Tensor, steps: &Tensor, regions: &[Region], sizes: &[[f32; 2]], rules: &RegionRules) -> Vec<Found> {
    let corners: Vec<Corners> = regions.iter().map(|region| region.corners).collect();
    let outputs = logits.size()[1] as usize;
    let rows: Vec<[f32; 5]> = {
        let references = sent(corners.as_flattened(), &[corners.len() as i64, 4], logits.device());
        let boxes = CODER.decode(steps, &references);
        rows_of(&Tensor::cat(&[boxes, logits.softmax(-1, Kind::Float).unsqueeze(-1)], -1))
    };
    by_picture(sizes.len(), |picture| {
        let (mut boxes, mut scores, mut labels) = (vec![], vec![], vec![]);
        let own = regions.iter().enumerate().filter(|(_, region)| region.picture == picture);
        // Some anchors always lie in a picture: without any region its proposals were no numbers.
        let mut some = false;
        let mut numbers = true;
        for (number, _) in own {
            some = true;
            // Class 0 is the background.
            for label in 1..outputs {
                let [left, top, right, bottom, score] = rows[number * outputs + label];
                let corners = clipped([left, top, right, bottom], sizes[picture]);
                numbers &= score.is_finite();
                if score > rules.score as f32 && is_at_least(corners, SHORTEST) {
                    boxes.push(corners);
                    scores.push(score);
                    labels.push(label);
                }
            }
        }
        let mut stay = suppressed(&boxes, &scores, &labels, rules.overlap);
        stay.truncate(rules.most as usize);
        Found {
            boxes: stay.iter().map(|&n| boxes[n]).collect(),
            labels: stay.iter().map(|&n| labels[n] as i64).collect(),
            scores: stay.iter().map(|&n| scores[n]).collect(),
            is_finite: some && numbers,
            ..Found::default()
        }
    })
}

/// Puts the masks of the found objects' classes, of logits P×K×M×M of all pictures, where they belong.
pub(super) fn put_masks(found: &mut [Found], logits: &Tensor) {
    let (_, outputs, side, _) = logits.size4().expect("logits are P×K×M×M");
    let labels = found.iter().flat_map(|found| found.labels.iter().copied());
    let rows: Vec<i64> = labels.enumerate().map(|(n, label)| n as i64 * outputs + label).collect();
    let rows = sent(&rows, &[rows.len() as i64], logits.device());
    let own = logits.reshape([-1, side * side]).index_select(0, &rows).sigmoid();
    let mut cells: Vec<f32> = rows_of::<1>(&own.reshape([-1, 1])).into_iter().flatten().collect();
    for found in found {
        let others = cells.split_off(found.boxes.len() * (side * side) as usize);
        found.masks = std::mem::replace(&mut cells, others);
        found.side = side as usize;
    }
}

/// A mask at the size of its picture: what of it lies in the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Pasted {
    /// First column of the picture.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Probabilities row by row.
    pub cells: Vec<f32>,
}

/// A row or column of the result of a bilinear resize: two cells and the share of the second.
fn taps(at: usize, from: usize, to: usize) -> (usize, usize, f32) {
    let source = ((at as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
    let low = (source as usize).min(from - 1);
    (low, (low + 1).min(from - 1), source - low as f32)
}

/// A mask of `side` × `side` probabilities in a box, as pixels of a picture of `size` (width, height), by torchvision's rule: a border of one empty cell
/// goes around the mask and the box grows with it, to whole pixels; the mask is resized to those. All outside is 0.
///
/// # Panics
/// `mask` has not `side` × `side` values.
#[must_use]
pub fn pasted(mask: &[f32], side: usize, [left, top, right, bottom]: Corners, [width, height]: [usize; 2]) -> Pasted {
    assert_eq!(mask.len(), side * side, "cells of a mask");
    let padded = side + 2;
    let grown = padded as f32 / side as f32;
    let whole = |low: f32, high: f32| {
        let (half, centre) = ((high - low) * 0.5 * grown, (high + low) * 0.5);
        ((centre - half) as i64, (centre + half) as i64)
    };
    let ((from_x, to_x), (from_y, to_y)) = (whole(left, right), whole(top, bottom));
    let of_axis = |from: i64, to: i64, pixels: usize| {
        let cells = (to - from + 1).max(1) as usize;
        let first = from.clamp(0, pixels as i64);
        let end = (to + 1).clamp(first, pixels as i64);
        let taps: Vec<_> = (first..end).map(|at| taps((at - from) as usize, padded, cells)).collect();
        (first as usize, taps)
    };
    let (first_x, columns) = of_axis(from_x, to_x, width);
    let (first_y, rows) = of_axis(from_y, to_y, height);
    let cell = |row: usize, column: usize| {
        let inside = (1..=side).contains(&row) && (1..=side).contains(&column);
        if inside { mask[(row - 1) * side + column - 1] } else { 0.0 }
    };
    let mut cells = Vec::with_capacity(rows.len() * columns.len());
    for &(top, bottom, down) in &rows {
        for &(left, right, across) in &columns {
            let of_row = |row: usize| (1.0 - across) * cell(row, left) + across * cell(row, right);
            cells.push((1.0 - down) * of_row(top) + down * of_row(bottom));
        }
    }
    Pasted {
        left: first_x,
        top: first_y,
        width: columns.len(),
        height: rows.len(),
        cells,
    }
}
