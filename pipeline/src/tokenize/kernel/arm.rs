//! Kernel for 64-bit ARM.

use super::*;
use std::arch::aarch64::*;

/// NEON. Sums of two products are held in 16 bits: 2·127·127 fits, so words have 7 bits.
pub(in super::super) struct Neon;

#[expect(
    unsafe_code,
    reason = "intrinsics; every aarch64 has NEON, and all loads lie in the slices whose lengths are asserted"
)]
impl Kernel for Neon {
    #[inline(always)]
    unsafe fn tile<const N: usize>(tile: &[Line], lengths: &[Line], group: &[i8], thresholds: &[i32; N], sums: &mut Sums<N>) -> [u64; N] {
        let steps = tile.len() / 4;
        assert!(tile.len() == steps * 4 && lengths.len() == 4 && group.len() == (steps + 1) * 4 * N);
        // Two of the sixteen vectors of four words at a time: 12 sums, 2 words, 1 patch in 32 registers.
        for part in 0..8 {
            // SAFETY: every aarch64 has NEON; each step loads four lines of words and 4 × N bytes of patches, of which the assertion found enough.
            unsafe {
                let mut acc = [[vdupq_n_s32(0); 2]; N];
                for (step, q) in group.chunks_exact(4 * N).enumerate() {
                    let lines = if step == steps { lengths } else { &tile[4 * step..4 * step + 4] };
                    let at = lines[part / 2].0.as_ptr().add(part % 2 * 32).cast::<i8>();
                    let w = [vld1q_s8(at), vld1q_s8(at.add(16))];
                    for (acc, q) in acc.iter_mut().zip(q.as_chunks::<4>().0) {
                        let x = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(q.map(|b| b as u8))));
                        for (acc, w) in acc.iter_mut().zip(w) {
                            *acc = vpadalq_s16(*acc, pairs(w, x));
                        }
                    }
                }
                for (sums, acc) in sums.iter_mut().zip(acc) {
                    vst1q_s32(sums.as_mut_ptr().add(8 * part), acc[0]);
                    vst1q_s32(sums.as_mut_ptr().add(8 * part + 4), acc[1]);
                }
            }
        }
        std::array::from_fn(|g| sums[g].iter().rev().fold(0, |mask, &s| (mask << 1) | u64::from(s > thresholds[g])))
    }

    #[inline(always)]
    unsafe fn dot(row: &[Line], q: &[i8]) -> i32 {
        assert_eq!(row.len() * 64, q.len());
        // SAFETY: every aarch64 has NEON; each load reads one line and one chunk of 64 bytes.
        unsafe {
            let mut acc = vdupq_n_s32(0);
            for (line, q) in row.iter().zip(q.chunks_exact(64)) {
                for at in [0, 16, 32, 48] {
                    let w = vld1q_s8(line.0.as_ptr().add(at).cast());
                    acc = vpadalq_s16(acc, pairs(w, vld1q_s8(q.as_ptr().add(at))));
                }
            }
            vaddvq_s32(acc)
        }
    }

    #[inline(always)]
    unsafe fn dot32(a: &[[f32; 16]], b: &[[f32; 16]]) -> f32 {
        // SAFETY: every aarch64 has NEON; each load reads one array of 16 numbers.
        unsafe {
            let mut acc = [vdupq_n_f32(0.0); 4];
            for (a, b) in a.iter().zip(b) {
                for part in 0..4 {
                    let (a, b) = (a.as_ptr().add(4 * part), b.as_ptr().add(4 * part));
                    acc[part] = vfmaq_f32(acc[part], vld1q_f32(a), vld1q_f32(b));
                }
            }
            vaddvq_f32(vaddq_f32(vaddq_f32(acc[0], acc[1]), vaddq_f32(acc[2], acc[3])))
        }
    }

    #[inline(always)]
    unsafe fn at_least(values: &[f32; CELL], bar: f32) -> u32 {
        values.iter().rev().fold(0, |mask, &v| (mask << 1) | u32::from(v >= bar))
    }

    #[inline(always)]
    unsafe fn lanes(rows: &[Lanes], x: &[f32]) -> [f32; CELL] {
        // SAFETY: every aarch64 has NEON; each load and store has an array of 32 numbers.
        unsafe {
            let mut acc = [vdupq_n_f32(0.0); 8];
            for (row, x) in rows.iter().zip(x) {
                for part in 0..8 {
                    acc[part] = vfmaq_n_f32(acc[part], vld1q_f32(row.0.as_ptr().add(4 * part)), *x);
                }
            }
            let mut sums = [0f32; CELL];
            for part in 0..8 {
                vst1q_f32(sums.as_mut_ptr().add(4 * part), acc[part]);
            }
            sums
        }
    }
}

/// Sums of neighbouring products.
#[inline(always)]
#[expect(unsafe_code, reason = "intrinsics; every aarch64 has NEON")]
unsafe fn pairs(w: int8x16_t, x: int8x16_t) -> int16x8_t {
    // SAFETY: every aarch64 has NEON; the two registers are arguments; no memory is read.
    unsafe { vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x)) }
}
