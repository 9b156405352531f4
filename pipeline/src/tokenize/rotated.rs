//! The words of a vocabulary in the coordinates of the search, and in an order that keeps neighbours together.

use std::collections::HashSet;

use super::codebook::Codebook;
use super::rotation::{PAD, Rotation};

/// The distinct words, rotated.
pub(super) struct Rotated {
    pub(super) rotation: Rotation,
    /// Padded length of a rotated vector.
    pub(super) padded: usize,
    /// Place → index in the codebook. Of words that are the same the lowest index wins always: only that one is here.
    pub(super) words: Vec<u32>,
    e: Vec<f64>,
}

impl Rotated {
    pub(super) fn new(book: &Codebook) -> Self {
        Self::by(Rotation::new(book.patch as usize), book)
    }

    /// Components with the most energy in the words first.
    pub(super) fn by_energy(book: &Codebook) -> Self {
        let first = Self::new(book);
        let energy: Vec<f64> = (0..book.dim()).map(|j| first.column(j).map(|x| x * x).sum()).collect();
        let mut order: Vec<usize> = (0..book.dim()).collect();
        order.sort_by(|&a, &b| energy[b].total_cmp(&energy[a]).then(a.cmp(&b)));
        Self::by(first.rotation.reordered(&order), book)
    }

    fn by(rotation: Rotation, book: &Codebook) -> Self {
        let padded = book.dim().next_multiple_of(PAD);
        let mut seen = HashSet::new();
        let bits = |w: u32| book.vector(w as usize).iter().map(|v| (v + 0.0).to_bits()).collect::<Vec<_>>();
        let words: Vec<u32> = (0..book.len() as u32).filter(|&w| seen.insert(bits(w))).collect();
        let mut e = vec![0.0; words.len() * padded];
        for (row, &w) in e.chunks_exact_mut(padded).zip(&words) {
            let x: Vec<f64> = book.vector(w as usize).iter().map(|&v| f64::from(v)).collect();
            rotation.exact(&x, row);
        }
        Self {
            rotation,
            padded,
            words,
            e,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn row(&self, place: usize) -> &[f64] {
        &self.e[place * self.padded..][..self.padded]
    }

    pub(super) fn column(&self, j: usize) -> impl Iterator<Item = f64> {
        self.e.iter().skip(j).step_by(self.padded).copied()
    }

    /// An order of the places in which every `size` of them lie close to each other: halved again and again along the component whose
    /// variance times its weight is largest.
    pub(super) fn crowds(&self, size: usize, weights: &[f64]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        self.halve(&mut order, size, weights);
        order
    }

    fn halve(&self, places: &mut [usize], size: usize, weights: &[f64]) {
        if places.len() <= size {
            return;
        }
        let n = places.len() as f64;
        let variance = |j: usize| {
            let column = places.iter().map(|&s| self.row(s)[j]);
            let (sum, squares) = column.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
            squares / n - (sum / n) * (sum / n)
        };
        let spread = weights.iter().enumerate().map(|(j, weight)| (variance(j) * weight, j));
        let widest = spread.fold((f64::MIN, 0), |a, b| if b.0 > a.0 { b } else { a }).1;
        let middle = places.len().div_ceil(size).div_ceil(2) * size;
        let key = |&s: &usize| (self.row(s)[widest], s);
        places.select_nth_unstable_by(middle - 1, |a, b| {
            let (a, b) = (key(a), key(b));
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
        });
        let (low, high) = places.split_at_mut(middle);
        self.halve(low, size, weights);
        self.halve(high, size, weights);
    }
}
