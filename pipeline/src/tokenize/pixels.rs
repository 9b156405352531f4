//! Which numbers of a patch are compared with the words.

use serde::{Deserialize, Serialize};

/// Space that patches are mapped to before the cosine (docs/method.md §2). Every map is affine in the bytes of the patch.
///
/// The paper says "raw pixels"; with random vectors that leaves few distinct words, so the space is an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum PixelSpace {
    /// 0..1.
    Raw,
    /// Per channel (x − mean) ÷ std of ImageNet.
    #[default]
    MeanStd,
    /// (x − 0.5) ÷ 0.5.
    Centred,
    /// x − mean of the patch: brightness does not matter.
    PatchMeanRemoved,
    /// x − mean of the channel in the patch: neither brightness nor hue of the whole patch matters.
    ChannelMeanRemoved,
}

const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

impl PixelSpace {
    /// All of them, for help texts and tests.
    pub const ALL: [Self; 5] = [
        Self::Raw,
        Self::MeanStd,
        Self::Centred,
        Self::PatchMeanRemoved,
        Self::ChannelMeanRemoved,
    ];

    /// Name in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::MeanStd => "mean-std",
            Self::Centred => "centred",
            Self::PatchMeanRemoved => "patch-mean-removed",
            Self::ChannelMeanRemoved => "channel-mean-removed",
        }
    }

    /// The space of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Maps a planar 3×p×p patch of bytes; `out` has as many numbers.
    ///
    /// Where a mean is removed, the result is scaled by 255 × (numbers in the mean), which makes it a whole number and a flat patch exactly
    /// zero; a positive factor changes no argmax.
    pub fn map(self, patch: &[u8], out: &mut [f64]) {
        let plane = patch.len() / 3;
        match self {
            Self::Raw => out.iter_mut().zip(patch).for_each(|(o, &u)| *o = f64::from(u) / 255.0),
            Self::Centred => out.iter_mut().zip(patch).for_each(|(o, &u)| *o = (f64::from(u) - 127.5) / 127.5),
            Self::MeanStd => {
                for (c, (o, u)) in out.chunks_exact_mut(plane).zip(patch.chunks_exact(plane)).enumerate() {
                    o.iter_mut()
                        .zip(u)
                        .for_each(|(o, &u)| *o = (f64::from(u) / 255.0 - MEAN[c]) / STD[c]);
                }
            }
            Self::PatchMeanRemoved => remove_mean(patch, out),
            Self::ChannelMeanRemoved => {
                for (o, u) in out.chunks_exact_mut(plane).zip(patch.chunks_exact(plane)) {
                    remove_mean(u, o);
                }
            }
        }
    }

    /// What one level of a byte amounts to in the numbers of [`PixelSpace::map`], for a patch of `dim` numbers.
    #[must_use]
    pub fn level(self, dim: usize) -> f64 {
        match self {
            Self::Raw => 1.0 / 255.0,
            Self::Centred => 1.0 / 127.5,
            Self::MeanStd => 1.0 / (255.0 * STD[1]),
            Self::PatchMeanRemoved => dim as f64,
            Self::ChannelMeanRemoved => dim as f64 / 3.0,
        }
    }

    /// Brings a vector of this space back to bytes for display. `contrast` scales it around the space's neutral grey.
    #[must_use]
    pub fn to_bytes(self, vector: &[f32], contrast: f64) -> Vec<u8> {
        let plane = vector.len() / 3;
        let byte = |x: f64| (x * 255.0).round().clamp(0.0, 255.0) as u8;
        let value = |(i, &v): (usize, &f32)| {
            let v = f64::from(v) * contrast;
            let c = (i / plane).min(2);
            byte(match self {
                Self::Raw => v,
                Self::MeanStd => v * STD[c] + MEAN[c],
                Self::Centred => v * 0.5 + 0.5,
                Self::PatchMeanRemoved | Self::ChannelMeanRemoved => v + 0.5,
            })
        };
        vector.iter().enumerate().map(value).collect()
    }
}

/// A space with its values looked up.
#[derive(Debug)]
pub(super) struct PixelMap {
    space: PixelSpace,
    exact: Box<[[f64; 256]; 3]>,
    fast: Box<[[f32; 256]; 3]>,
}

impl PixelMap {
    pub(super) fn new(space: PixelSpace) -> Self {
        let mut exact = Box::new([[0.0; 256]; 3]);
        let mut fast = Box::new([[0.0; 256]; 3]);
        if !matches!(space, PixelSpace::PatchMeanRemoved | PixelSpace::ChannelMeanRemoved) {
            for u in 0..=255u8 {
                let mut values = [0.0; 3];
                space.map(&[u; 3], &mut values);
                for c in 0..3 {
                    exact[c][usize::from(u)] = values[c];
                    fast[c][usize::from(u)] = values[c] as f32;
                }
            }
        }
        Self { space, exact, fast }
    }

    /// As [`PixelSpace::map`], to the last bit.
    #[inline(always)]
    pub(super) fn exact(&self, patch: &[u8], out: &mut [f64]) {
        match self.space {
            PixelSpace::PatchMeanRemoved | PixelSpace::ChannelMeanRemoved => self.space.map(patch, out),
            PixelSpace::Raw | PixelSpace::MeanStd | PixelSpace::Centred => look_up(&self.exact, patch, out),
        }
    }

    /// As [`PixelSpace::map`], rounded to f32 (exact where a mean is removed: whole numbers below 2²⁴).
    #[inline(always)]
    pub(super) fn fast(&self, patch: &[u8], out: &mut [f32]) {
        let plane = patch.len() / 3;
        match self.space {
            PixelSpace::PatchMeanRemoved => remove_mean32(patch, out),
            PixelSpace::ChannelMeanRemoved => {
                let planes = out.chunks_exact_mut(plane).zip(patch.chunks_exact(plane));
                planes.for_each(|(o, u)| remove_mean32(u, o));
            }
            PixelSpace::Raw | PixelSpace::MeanStd | PixelSpace::Centred => look_up(&self.fast, patch, out),
        }
    }
}

#[inline(always)]
fn look_up<T: Copy>(table: &[[T; 256]; 3], patch: &[u8], out: &mut [T]) {
    let plane = patch.len() / 3;
    for ((o, u), table) in out.chunks_exact_mut(plane).zip(patch.chunks_exact(plane)).zip(table) {
        o.iter_mut().zip(u).for_each(|(o, &u)| *o = table[usize::from(u)]);
    }
}

#[inline(always)]
fn remove_mean32(u: &[u8], out: &mut [f32]) {
    let sum: i32 = u.iter().map(|&u| i32::from(u)).sum();
    let n = u.len() as i32;
    out.iter_mut().zip(u).for_each(|(o, &u)| *o = (i32::from(u) * n - sum) as f32);
}

fn remove_mean(u: &[u8], out: &mut [f64]) {
    let sum: i64 = u.iter().map(|&u| i64::from(u)).sum();
    let n = u.len() as i64;
    out.iter_mut().zip(u).for_each(|(o, &u)| *o = (i64::from(u) * n - sum) as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for s in PixelSpace::ALL {
            assert_eq!(PixelSpace::from_name(s.name()), Some(s));
            assert_eq!(serde_json::to_string(&s).unwrap(), format!("\"{}\"", s.name()));
        }
    }

    #[test]
    fn values_of_a_patch() {
        let patch: Vec<u8> = vec![0, 255, 51, 102, 10, 20, 30, 40, 7, 7, 7, 7];
        let mut x = vec![0.0; 12];
        PixelSpace::Raw.map(&patch, &mut x);
        assert_eq!(x[..4], [0.0, 1.0, 0.2, 0.4]);
        PixelSpace::Centred.map(&patch, &mut x);
        assert_eq!(x[..2], [-1.0, 1.0]);
        PixelSpace::MeanStd.map(&patch, &mut x);
        assert!((x[1] - (1.0 - 0.485) / 0.229).abs() < 1e-12 && (x[4] - (10.0 / 255.0 - 0.456) / 0.224).abs() < 1e-12);
        PixelSpace::ChannelMeanRemoved.map(&patch, &mut x);
        assert_eq!(x[4..], [-60.0, -20.0, 20.0, 60.0, 0.0, 0.0, 0.0, 0.0]);
        PixelSpace::PatchMeanRemoved.map(&patch, &mut x);
        assert_eq!(x.iter().sum::<f64>(), 0.0);
        assert_eq!(x[8], 7.0 * 12.0 - 536.0);
    }

    #[test]
    fn looked_up_values_are_the_same() {
        for space in PixelSpace::ALL {
            for p in [1usize, 8, 32] {
                let patch: Vec<u8> = (0..3 * p * p).map(|i| (i * 7919 % 251) as u8).collect();
                let (mut a, mut b, mut c) = (vec![0.0; patch.len()], vec![0.0; patch.len()], vec![0.0; patch.len()]);
                space.map(&patch, &mut a);
                let map = PixelMap::new(space);
                map.exact(&patch, &mut b);
                map.fast(&patch, &mut c);
                assert_eq!(a, b);
                assert!(a.iter().zip(&c).all(|(a, c)| *a as f32 == *c));
            }
        }
    }

    #[test]
    fn flat_patches_are_exactly_zero_without_their_mean() {
        for v in [0, 1, 77, 255] {
            let mut x = vec![1.0; 192];
            PixelSpace::PatchMeanRemoved.map(&[v; 192], &mut x);
            assert!(x.iter().all(|&x| x == 0.0));
        }
    }
}
