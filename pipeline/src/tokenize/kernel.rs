//! The two integer products of the fast pass, per instruction set. All give the same integers for the same bytes.

/// Words of a tile: four vectors of 16 lanes, each lane four bytes of one word.
pub(super) const TILE: usize = 64;

/// 64 bytes on a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; 64]);

/// Patches that meet a tile of words together.
pub(super) const GROUP: usize = 6;

/// Integer sums of N patches with the 64 words of a tile.
pub(super) type Sums<const N: usize> = [[i32; TILE]; N];

/// Words of a cell (see `cells`).
pub(super) const CELL: usize = 32;

/// One number of each word of a cell, or of 32 cells.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub(super) [f32; CELL]);

/// One instruction set.
///
/// # Safety
/// The methods must only be called where the CPU has it.
pub(super) trait Kernel {
    /// Asks for a cache line ahead of its use.
    fn prefetch<T>(_line: &T) {}

    /// Sums of words (4 lines for each step of four components) and patches (`[step][patch][4]`), plus those of a last step `lengths`.
    /// Answers which words exceed each patch's threshold, and stores the sums of the patches with any.
    #[expect(unsafe_code, reason = "SIMD of a CPU that may lack it")]
    unsafe fn tile<const N: usize>(tile: &[Line], lengths: &[Line], group: &[i8], thresholds: &[i32; N], sums: &mut Sums<N>) -> [u64; N];

    /// Σ row·q.
    #[expect(unsafe_code, reason = "SIMD of a CPU that may lack it")]
    unsafe fn dot(row: &[Line], q: &[i8]) -> i32;

    /// Σ a·b in 16 chains; as many as the shorter one has.
    #[expect(unsafe_code, reason = "SIMD of a CPU that may lack it")]
    unsafe fn dot32(a: &[[f32; 16]], b: &[[f32; 16]]) -> f32;

    /// Bit i: value i reaches the bar.
    #[expect(unsafe_code, reason = "SIMD of a CPU that may lack it")]
    unsafe fn at_least(values: &[f32; CELL], bar: f32) -> u32;

    /// Σ a·b in f64, in eight partial sums; products are rounded before they are added, so that all instruction sets agree.
    #[inline(always)]
    #[expect(unsafe_code, reason = "SIMD of a CPU that may lack it")]
    unsafe fn eighths(a: &[[f64; 8]], b: &[[f32; 8]]) -> [f64; 8] {
        let mut sums = [0.0; 8];
        for (a, b) in a.iter().zip(b) {
            for lane in 0..8 {
                sums[lane] += a[lane] * f64::from(b[lane]);
            }
        }
        sums
    }
    /// Σ row·number, lane by lane.
    #[expect(unsafe_code, reason = "SIMD of a CPU that may lack it")]
    unsafe fn lanes(rows: &[Lanes], x: &[f32]) -> [f32; CELL];
}

/// Plain Rust.
pub(super) struct Portable;

#[expect(unsafe_code, reason = "safe code behind the trait's signature")]
impl Kernel for Portable {
    #[inline(always)]
    unsafe fn tile<const N: usize>(tile: &[Line], lengths: &[Line], group: &[i8], thresholds: &[i32; N], sums: &mut Sums<N>) -> [u64; N] {
        *sums = [[0; TILE]; N];
        for (lines, q) in tile.chunks_exact(4).chain([lengths]).zip(group.chunks_exact(4 * N)) {
            for (q, sums) in q.as_chunks::<4>().0.iter().zip(sums.iter_mut()) {
                for (line, sums) in lines.iter().zip(sums.as_chunks_mut::<16>().0) {
                    for (w, sum) in line.0.as_chunks::<4>().0.iter().zip(sums) {
                        *sum += (0..4).map(|i| i32::from(w[i]) * i32::from(q[i])).sum::<i32>();
                    }
                }
            }
        }
        std::array::from_fn(|g| sums[g].iter().rev().fold(0, |mask, &s| (mask << 1) | u64::from(s > thresholds[g])))
    }

    #[inline(always)]
    unsafe fn dot(row: &[Line], q: &[i8]) -> i32 {
        let products = row.iter().zip(q.as_chunks::<64>().0);
        products
            .map(|(line, q)| (0..64).map(|i| i32::from(line.0[i]) * i32::from(q[i])).sum::<i32>())
            .sum()
    }

    #[inline(always)]
    unsafe fn dot32(a: &[[f32; 16]], b: &[[f32; 16]]) -> f32 {
        let mut sums = [0f32; 16];
        for (a, b) in a.iter().zip(b) {
            for lane in 0..16 {
                sums[lane] += a[lane] * b[lane];
            }
        }
        sums.iter().sum()
    }

    #[inline(always)]
    unsafe fn at_least(values: &[f32; CELL], bar: f32) -> u32 {
        values.iter().rev().fold(0, |mask, &v| (mask << 1) | u32::from(v >= bar))
    }

    #[inline(always)]
    unsafe fn lanes(rows: &[Lanes], x: &[f32]) -> [f32; CELL] {
        let mut sums = [0f32; CELL];
        for (row, x) in rows.iter().zip(x) {
            for lane in 0..CELL {
                sums[lane] += row.0[lane] * x;
            }
        }
        sums
    }
}

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(super) use arm::Neon;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512Vnni};
