//! A rotation that gathers the energy of natural patches in few leading components: DCT-II over rows and columns, opponent colours.

/// Components that the fast pass treats together; the padded length of a rotated patch is a multiple of [`PAD`].
pub(super) const CHUNK: usize = 16;
/// Rotated vectors are padded with zeros to a multiple of this.
pub(super) const PAD: usize = 64;

/// Orthonormal map R^d → R^d for planar 3×p×p patches.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    p: usize,
    /// Transposed p×p DCT matrix: `[place][frequency]`.
    dct: Vec<f64>,
    dct32: Vec<f32>,
    /// `place[c·p² + fy·p + fx]`: where that coefficient goes.
    place: Vec<u32>,
}

/// Expected energy of natural patches by coefficient `c·p² + fy·p + fx`: 1/f² spectra, colour differences far weaker than brightness.
/// Decides speed only.
fn expected(p: usize) -> Vec<f64> {
    let weight = |i: usize| {
        let (c, fy, fx) = (i / (p * p), i / p % p, i % p);
        [1.0, 0.1, 0.05][c] / (0.02 + (fx * fx + fy * fy) as f64)
    };
    (0..3 * p * p).map(weight).collect()
}

/// Rows of the colour rotation: brightness, red − blue, green − the mean of both.
fn colour() -> [[f64; 3]; 3] {
    let (a, b, c) = (1.0 / 3f64.sqrt(), 1.0 / 2f64.sqrt(), 1.0 / 6f64.sqrt());
    [[a, a, a], [b, 0.0, -b], [c, -2.0 * c, c]]
}

impl Rotation {
    pub(super) fn new(p: usize) -> Self {
        let n = p as f64;
        let entry = |place: usize, frequency: usize| {
            let scale = if frequency == 0 { (1.0 / n).sqrt() } else { (2.0 / n).sqrt() };
            scale * (std::f64::consts::PI * (place as f64 + 0.5) * frequency as f64 / n).cos()
        };
        let dct: Vec<f64> = (0..p * p).map(|i| entry(i / p, i % p)).collect();
        let energy = expected(p);
        let mut order: Vec<usize> = (0..3 * p * p).collect();
        order.sort_by(|&a, &b| energy[b].total_cmp(&energy[a]).then(a.cmp(&b)));
        let mut place = vec![0; 3 * p * p];
        order.iter().enumerate().for_each(|(to, &from)| place[from] = to as u32);
        Self {
            p,
            dct32: dct.iter().map(|&x| x as f32).collect(),
            dct,
            place,
        }
    }

    /// Expected energy of the first `n` components of natural patches in the order of [`Rotation::new`]. Decides speed only.
    pub(super) fn energies(&self, n: usize) -> Vec<f64> {
        let mut energy = expected(self.p);
        energy.sort_by(|a, b| b.total_cmp(a));
        energy.truncate(n);
        energy
    }

    /// The same rotation with its components in another order: component `order[i]` becomes component i.
    pub(super) fn reordered(mut self, order: &[usize]) -> Self {
        let mut to = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, &old)| to[old] = new as u32);
        self.place.iter_mut().for_each(|place| *place = to[*place as usize]);
        self
    }

    /// Rotates in f64 (words).
    pub(super) fn exact(&self, x: &[f64], out: &mut [f64]) {
        let (p, plane) = (self.p, self.p * self.p);
        let mut mixed = vec![0.0; 3 * plane];
        for (c, row) in colour().iter().enumerate() {
            for i in 0..plane {
                mixed[c * plane + i] = row[0] * x[i] + row[1] * x[plane + i] + row[2] * x[2 * plane + i];
            }
        }
        let mut half = vec![0.0; plane];
        for c in 0..3 {
            for y in 0..p {
                for f in 0..p {
                    half[y * p + f] = (0..p).map(|i| mixed[c * plane + y * p + i] * self.dct[i * p + f]).sum();
                }
            }
            for fy in 0..p {
                for fx in 0..p {
                    let sum = (0..p).map(|y| half[y * p + fx] * self.dct[y * p + fy]).sum();
                    out[self.place[c * plane + fy * p + fx] as usize] = sum;
                }
            }
        }
    }

    /// |f32 result − exact result|₂ ≤ this × |x|₂ for [`Rotation::fast`].
    ///
    /// A product with an orthonormal n×n matrix rounded to f32, summed in f32, errs by at most (n + 1)·u·√n·|x| to first order, u = 2⁻²⁴;
    /// three products follow each other (3, p, p). One u is for rounding x itself, the last factor for second-order terms.
    pub(super) fn error(&self) -> f64 {
        let product = |n: f64| (n + 1.0) * n.sqrt();
        (1.0 + product(3.0) + 2.0 * product(self.p as f64)) * 2f64.powi(-24) * 1.01
    }

    /// Rotates in f32 (patches). `x` is planar, `work` as long; `out` is padded, its padding is left alone.
    #[inline(always)]
    pub(super) fn fast(&self, x: &mut [f32], work: &mut [f32], out: &mut [f32]) {
        let plane = self.p * self.p;
        let m = colour().map(|r| r.map(|v| v as f32));
        let (r, gb) = x.split_at_mut(plane);
        let (g, b) = gb.split_at_mut(plane);
        for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
            let (x, y, z) = (*r, *g, *b);
            *r = m[0][0] * x + m[0][1] * y + m[0][2] * z;
            *g = m[1][0] * x + m[1][2] * z;
            *b = m[2][0] * x + m[2][1] * y + m[2][2] * z;
        }
        for c in 0..3 {
            let (x, work) = (&x[c * plane..][..plane], &mut work[..plane]);
            match self.p {
                4 => transform::<4>(&self.dct32, x, work),
                8 => transform::<8>(&self.dct32, x, work),
                16 => transform::<16>(&self.dct32, x, work),
                p => transform_any(p, &self.dct32, x, work),
            }
            for (value, &place) in work.iter().zip(&self.place[c * plane..][..plane]) {
                out[place as usize] = *value;
            }
        }
    }
}

/// Both DCTs of a P×P plane, kept in registers.
#[inline(always)]
fn transform<const P: usize>(dct: &[f32], x: &[f32], out: &mut [f32]) {
    let (dct, x, out) = (dct.as_chunks::<P>().0, x.as_chunks::<P>().0, out.as_chunks_mut::<P>().0);
    // P sums grow side by side: one alone would wait for each of its steps.
    let mut columns = [[0f32; P]; P];
    for i in 0..P {
        for f in 0..P {
            for j in 0..P {
                columns[f][j] += dct[i][f] * x[i][j];
            }
        }
    }
    let mut sums = [[0f32; P]; P];
    for i in 0..P {
        for f in 0..P {
            for j in 0..P {
                sums[f][j] += columns[f][i] * dct[i][j];
            }
        }
    }
    out[..P].copy_from_slice(&sums);
}

/// The same for any p.
#[inline(always)]
fn transform_any(p: usize, dct: &[f32], x: &[f32], out: &mut [f32]) {
    let mut column = [0f32; super::codebook::MAX_PATCH as usize];
    for (f, out) in out.chunks_exact_mut(p).enumerate() {
        let column = &mut column[..p];
        column.fill(0.0);
        for (x, dct) in x.chunks_exact(p).zip(dct.chunks_exact(p)) {
            column.iter_mut().zip(x).for_each(|(s, x)| *s += dct[f] * x);
        }
        out.fill(0.0);
        for (c, dct) in column.iter().zip(dct.chunks_exact(p)) {
            out.iter_mut().zip(dct).for_each(|(s, d)| *s += c * d);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_dot_products_and_bounds_its_error() {
        for p in [1usize, 2, 3, 4, 7, 8, 16, 32] {
            let d = 3 * p * p;
            let rotation = Rotation::new(p);
            let x: Vec<f64> = (0..d).map(|i| f64::from(((i * 7919 + 13) % 256) as u8)).collect();
            let e: Vec<f64> = (0..d).map(|i| ((i * i) as f64).sin()).collect();
            let (mut rx, mut re) = (vec![0.0; d], vec![0.0; d]);
            rotation.exact(&x, &mut rx);
            rotation.exact(&e, &mut re);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            assert!(
                (dot(&x, &e) - dot(&rx, &re)).abs() < 1e-12 * (dot(&x, &x) * dot(&e, &e)).sqrt(),
                "p = {p}"
            );
            let mut x32: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let mut out = vec![0.0; d];
            rotation.fast(&mut x32, &mut vec![0.0; d], &mut out);
            let error: f64 = out.iter().zip(&rx).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt();
            assert!(error <= rotation.error() * dot(&x, &x).sqrt(), "p = {p}: {error}");
        }
    }

    #[test]
    fn smooth_patches_gather_in_front() {
        let p = 8;
        let x: Vec<f64> = (0..192).map(|i| 100.0 + (i % 8) as f64 * 3.0 + (i / 8 % 8) as f64).collect();
        let mut out = vec![0.0; 192];
        Rotation::new(p).exact(&x, &mut out);
        let energy = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
        assert!(energy(&out[..16]) > 0.9999 * energy(&out));
    }
}
