//! Of boxes that overlap, the best one stays (greedy non-maximum suppression), within groups: levels of the pyramid, or classes.

use super::corners::{Columns, Corners};

/// Boxes of one group in falling order of their scores.
#[derive(Default)]
struct Group {
    boxes: Columns,
    /// Whether a better one overlaps it.
    dropped: Vec<bool>,
}

impl Group {
    /// Drops what overlaps a better one by more than `most`.
    fn suppress(&mut self, most: f32) {
        let n = self.dropped.len();
        let mut overlaps = vec![0.0; n];
        for best in 0..n {
            if self.dropped[best] {
                continue;
            }
            let overlaps = &mut overlaps[best + 1..];
            self.boxes.overlaps(self.boxes.get(best), overlaps);
            for (dropped, overlap) in self.dropped[best + 1..].iter_mut().zip(overlaps) {
                *dropped |= *overlap > most;
            }
        }
    }
}

/// Numbers of the boxes that stay, by falling score; of equal scores the first comes first. A box goes where it overlaps a better one of its group by more
/// than `most` (intersection over union). Groups are numbered from 0.
#[must_use]
pub fn suppressed(boxes: &[Corners], scores: &[f32], groups: &[usize], most: f64) -> Vec<usize> {
    // torchvision compares an f32 with the f64: the same as with the largest f32 that is not above it.
    let mut limit = most as f32;
    if f64::from(limit) > most {
        limit = limit.next_down();
    }
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut by_group: Vec<Group> = Vec::new();
    for &number in &order {
        let group = groups[number];
        if by_group.len() <= group {
            by_group.resize_with(group + 1, Group::default);
        }
        by_group[group].boxes.push(boxes[number]);
        by_group[group].dropped.push(false);
    }
    by_group.iter_mut().for_each(|group| group.suppress(limit));
    let mut next = vec![0; by_group.len()];
    order.retain(|&number| {
        let place = &mut next[groups[number]];
        *place += 1;
        !by_group[groups[number]].dropped[*place - 1]
    });
    order
}
