//! Of boxes that overlap, the best one stays (greedy non-maximum suppression), within groups: levels of the pyramid, or classes.

use super::corners::{Corners, area};

/// Boxes of one group in falling order of their scores, side by side, so that one is compared with many at a time.
#[derive(Default)]
struct Columns {
    left: Vec<f32>,
    top: Vec<f32>,
    right: Vec<f32>,
    bottom: Vec<f32>,
    area: Vec<f32>,
    /// 1 = a better one overlaps it.
    dropped: Vec<u8>,
}

impl Columns {
    fn push(&mut self, corners: Corners) {
        let [left, top, right, bottom] = corners;
        self.left.push(left);
        self.top.push(top);
        self.right.push(right);
        self.bottom.push(bottom);
        self.area.push(area(corners));
        self.dropped.push(0);
    }

    /// Drops what overlaps a better one by more than `most`.
    fn suppress(&mut self, most: f32) {
        let n = self.dropped.len();
        for best in 0..n {
            if self.dropped[best] != 0 {
                continue;
            }
            let (left, top) = (self.left[best], self.top[best]);
            let (right, bottom, area) = (self.right[best], self.bottom[best], self.area[best]);
            let rest = best + 1..n;
            let sides = self.left[rest.clone()].iter().zip(&self.top[rest.clone()]);
            let others = self.right[rest.clone()].iter().zip(&self.bottom[rest.clone()]).zip(&self.area[rest.clone()]);
            for ((dropped, (l, t)), ((r, b), other)) in self.dropped[rest].iter_mut().zip(sides).zip(others) {
                let width = (right.min(*r) - left.max(*l)).max(0.0);
                let height = (bottom.min(*b) - top.max(*t)).max(0.0);
                let common = width * height;
                *dropped |= u8::from(common / (area + other - common) > most);
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
    let mut columns: Vec<Columns> = Vec::new();
    for &number in &order {
        let group = groups[number];
        if columns.len() <= group {
            columns.resize_with(group + 1, Columns::default);
        }
        columns[group].push(boxes[number]);
    }
    columns.iter_mut().for_each(|group| group.suppress(limit));
    let mut next = vec![0; columns.len()];
    order.retain(|&number| {
        let place = &mut next[groups[number]];
        *place += 1;
        columns[groups[number]].dropped[*place - 1] == 0
    });
    order
}
