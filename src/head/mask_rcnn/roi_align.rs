//! RoIAlign (arXiv 1703.06870 §3) as two matrix products: bilinear samples of a region are sums over rows of a map, then over its columns, so a region is a
//! matrix of its rows' weights and one of its columns'. They are filled on the host, cell by cell in a fixed order, because libtorch's scattered sums on
//! CUDA come out differently from run to run; the gradient is that of two products.

use std::collections::BTreeMap;
use std::ops::Range;

use tch::{Device, Kind, Tensor};
use torch_ext::{Autocast, Plain, send};

use super::corners::{Corners, area};

/// Values of the intermediate result of one product at the most: regions are taken in portions (256 MB).
const PORTION: i64 = 1 << 26;

/// A part of a picture of the batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Row of the picture in the batch.
    pub picture: usize,
    /// In pixels of the canvas.
    pub corners: Corners,
}

/// Maps B×C×H×W of a level, and cells a pixel.
#[derive(Debug, Clone, Copy)]
pub struct Level<'a> {
    /// The maps.
    pub maps: &'a Tensor,
    /// Cells of the map ÷ pixels of the canvas.
    pub scale: f32,
}

/// A mask as a bitmap in its own box; all outside is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bitmap<'a> {
    /// First column of the canvas.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Row by row, 1 = object.
    pub pixels: &'a [u8],
}

/// How regions are read off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiAlign {
    /// Side of the result in cells.
    pub side: usize,
    /// Samples of a cell along each axis; `None` = one a cell of the map, rounded up.
    pub samples: Option<u32>,
    /// Whether centres of cells, not corners, lie at whole numbers; else regions are half a cell off, and one cell wide at least (torchvision's default).
    pub aligned: bool,
}

/// Sends values that an operator needs; fails as operators do.
pub(super) fn sent<T: Plain>(values: &[T], shape: &[i64], device: Device) -> Tensor {
    send(values, shape, device).unwrap_or_else(|e| panic!("{e}"))
}

/// Regions that are read off one map.
struct Group {
    /// Which of all regions.
    regions: Vec<usize>,
    /// Columns C of the map's cells.
    channels: i64,
    /// Rows and columns of it.
    size: [i64; 2],
    /// Where the matrix of rows begins among all weights; that of columns follows.
    start: usize,
}

/// Matrices of many regions, for one transport.
#[derive(Default)]
struct Weights(Vec<f32>);

impl RoiAlign {
    /// Weights of the cells in `window` of an axis of `size` cells for a region from `from` to `to` pixels: `side` rows of `window.len()`.
    fn fill(&self, [from, to]: [f32; 2], scale: f32, size: usize, window: Range<usize>, weights: &mut Weights) {
        let offset = if self.aligned { 0.5 } else { 0.0 };
        let start = from * scale - offset;
        let mut length = (to * scale - offset) - start;
        if !self.aligned {
            length = length.max(1.0);
        }
        let cell = length / self.side as f32;
        let samples = self.samples.map_or_else(|| cell.ceil().max(0.0) as usize, |given| given as usize);
        let first = weights.0.len();
        let width = window.len();
        weights.0.resize(first + self.side * width, 0.0);
        for (p, row) in weights.0[first..].chunks_exact_mut(width.max(1)).enumerate() {
            for i in 0..samples {
                let at = start + p as f32 * cell + (i as f32 + 0.5) * cell / samples as f32;
                if !(-1.0..=size as f32).contains(&at) {
                    continue;
                }
                let at = at.max(0.0);
                let low = (at as usize).min(size - 1);
                let beyond = if low == size - 1 { 0.0 } else { at - low as f32 };
                let mut add = |cell: usize, share: f32| {
                    if let Some(place) = cell.checked_sub(window.start).filter(|place| *place < width) {
                        row[place] += share / samples as f32;
                    }
                };
                add(low, 1.0 - beyond);
                if low < size - 1 {
                    add(low + 1, beyond);
                }
            }
        }
    }

    /// The regions of a group off its map, C×H×W f32: R×C×side×side.
    fn product(&self, group: &Group, map: &Tensor, weights: &Tensor) -> Tensor {
        let (n, side) = (group.regions.len() as i64, self.side as i64);
        let [height, width] = group.size;
        let matrix = |start: usize, cells: i64| weights.narrow(0, start as i64, n * side * cells);
        let rows = matrix(group.start, height).view([n * side, height]);
        let columns = matrix(group.start + (n * side * height) as usize, width).view([n, side, width]);
        let by_rows = map.permute([1, 0, 2]).reshape([height, group.channels * width]);
        let reduced = rows.matmul(&by_rows).view([n, side * group.channels, width]);
        let cells = reduced.bmm(&columns.transpose(1, 2));
        cells.view([n, side, group.channels, side]).permute([0, 2, 1, 3])
    }

    /// `regions` off the level that `level_of` names for each: R×C×side×side, f32, with the gradient of the maps. Nothing waits for the device.
    pub fn pooled(&self, levels: &[Level<'_>], regions: &[Region], level_of: &[usize]) -> Tensor {
        let device = levels[0].maps.device();
        let _f32 = Autocast::off(device).expect("switching autocast off needs no device");
        let mut by_map: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (number, region) in regions.iter().enumerate() {
            by_map.entry((level_of[number], region.picture)).or_default().push(number);
        }
        let mut weights = Weights::default();
        let mut groups: Vec<(usize, usize, Group)> = Vec::new();
        for ((level, picture), numbers) in by_map {
            let (_, channels, height, width) = levels[level].maps.size4().expect("maps are B×C×H×W");
            let most = (PORTION / (self.side as i64 * channels * width)).max(1) as usize;
            for numbers in numbers.chunks(most) {
                let start = weights.0.len();
                for (axis, size) in [(1, height as usize), (0, width as usize)] {
                    for &number in numbers {
                        let corners = regions[number].corners;
                        let ends = [corners[axis], corners[axis + 2]];
                        self.fill(ends, levels[level].scale, size, 0..size, &mut weights);
                    }
                }
                let group = Group {
                    regions: numbers.to_vec(),
                    channels,
                    size: [height, width],
                    start,
                };
                groups.push((level, picture, group));
            }
        }
        let weights = sent(&weights.0, &[weights.0.len() as i64], device);
        let maps = |level: usize, picture: usize| levels[level].maps.get(picture as i64).to_kind(Kind::Float);
        let products: Vec<Tensor> = groups
            .iter()
            .map(|(level, picture, group)| self.product(group, &maps(*level, *picture), &weights))
            .collect();
        let channels = levels[0].maps.size()[1];
        self.in_order(&products, groups.iter().map(|(.., group)| group), channels, device)
    }

    /// What products of groups give, in the order of the regions.
    fn in_order<'a>(&self, products: &[Tensor], groups: impl Iterator<Item = &'a Group>, channels: i64, device: Device) -> Tensor {
        let side = self.side as i64;
        if products.is_empty() {
            return Tensor::zeros([0, channels, side, side], (Kind::Float, device));
        }
        let numbers: Vec<usize> = groups.flat_map(|group| group.regions.iter().copied()).collect();
        let mut place = vec![0i64; numbers.len()];
        for (at, number) in numbers.into_iter().enumerate() {
            place[number] = at as i64;
        }
        Tensor::cat(products, 0).index_select(0, &sent(&place, &[place.len() as i64], device))
    }

    /// What bitmaps on a square canvas of `canvas` pixels show in regions of it, each in its own: R×side×side, f32, 0 to 1.
    pub fn of_bitmaps(&self, regions: &[(Bitmap<'_>, Corners)], canvas: usize, device: Device) -> Tensor {
        let _f32 = Autocast::off(device).expect("switching autocast off needs no device");
        // The same pixels are the same bitmap: it goes to the device once.
        let mut by_bitmap: BTreeMap<(*const u8, [u32; 4]), Vec<usize>> = BTreeMap::new();
        for (number, (bitmap, _)) in regions.iter().enumerate() {
            let place = [bitmap.left, bitmap.top, bitmap.width, bitmap.height];
            by_bitmap.entry((bitmap.pixels.as_ptr(), place)).or_default().push(number);
        }
        let mut in_order: Vec<Vec<usize>> = by_bitmap.into_values().collect();
        // By the regions, not by where memory lies.
        in_order.sort_unstable();
        let (mut weights, mut pixels) = (Weights::default(), Vec::new());
        let mut groups: Vec<(i64, Group)> = Vec::new();
        for numbers in in_order {
            let Bitmap {
                left,
                top,
                width,
                height,
                pixels: own,
            } = regions[numbers[0]].0;
            let start = weights.0.len();
            for (axis, first, cells) in [(1, top as usize, height as usize), (0, left as usize, width as usize)] {
                for &number in &numbers {
                    let corners = regions[number].1;
                    self.fill([corners[axis], corners[axis + 2]], 1.0, canvas, first..first + cells, &mut weights);
                }
            }
            let group = Group {
                regions: numbers,
                channels: 1,
                size: [height.into(), width.into()],
                start,
            };
            groups.push((pixels.len() as i64, group));
            pixels.extend_from_slice(own);
        }
        let weights = sent(&weights.0, &[weights.0.len() as i64], device);
        let pixels = sent(&pixels, &[pixels.len() as i64], device);
        let of_group = |(first, group): &(i64, Group)| {
            let [height, width] = group.size;
            let map = pixels
                .narrow(0, *first, height * width)
                .view([1, height, width])
                .to_kind(Kind::Float);
            self.product(group, &map, &weights)
        };
        let products: Vec<Tensor> = groups.iter().map(of_group).collect();
        self.in_order(&products, groups.iter().map(|(_, group)| group), 1, device)
            .squeeze_dim(1)
    }
}

/// On which of `levels` maps, of which the first has `cells_a_pixel` cells a pixel and each next half as many, a region is read off: one of `canonical`
/// pixels a side where 16 pixels are a cell, one twice as long a level further (arXiv 1612.03144 eq. 1).
#[must_use]
pub fn level_of(corners: Corners, canonical: f32, cells_a_pixel: f32, levels: usize) -> usize {
    let lowest = -cells_a_pixel.log2().round();
    let level = (4.0 + (area(corners).sqrt() / canonical).log2() + 1e-6).floor();
    (level - lowest).clamp(0.0, (levels - 1) as f32) as usize
}
