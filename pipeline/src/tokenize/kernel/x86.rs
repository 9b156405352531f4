//! Kernels for x86-64.

use super::*;
use std::arch::x86_64::*;

/// AVX-512 with VNNI: 64 products in one instruction, summed in 32 bits.
pub(in super::super) struct Avx512Vnni;

#[expect(
    unsafe_code,
    reason = "intrinsics; the caller has checked the CPU, and all loads lie in the slices whose lengths are asserted"
)]
impl Kernel for Avx512Vnni {
    #[inline(always)]
    fn prefetch<T>(line: &T) {
        // SAFETY: a hint; it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) }
    }

    #[inline(always)]
    unsafe fn tile<const N: usize>(tile: &[Line], lengths: &[Line], group: &[i8], thresholds: &[i32; N], sums: &mut Sums<N>) -> [u64; N] {
        let steps = tile.len() / 4;
        assert!(tile.len() == steps * 4 && lengths.len() == 4 && group.len() == (steps + 1) * 4 * N);
        // SAFETY: the caller runs on a CPU with these instructions; each step loads four lines of words and 4 × N bytes of patches, of which the assertion found enough.
        unsafe {
            let mut acc = [[_mm512_setzero_si512(); 4]; N];
            let mut words = tile.as_ptr().cast::<__m512i>();
            let mut q = group.as_ptr().cast::<i32>();
            for step in 0..=steps {
                if step == steps {
                    words = lengths.as_ptr().cast();
                }
                // No closures here: they would be compiled without the instruction set and called.
                let w = [
                    _mm512_load_si512(words),
                    _mm512_load_si512(words.add(1)),
                    _mm512_load_si512(words.add(2)),
                    _mm512_load_si512(words.add(3)),
                ];
                for (g, acc) in acc.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(q.add(g).read_unaligned());
                    for (acc, w) in acc.iter_mut().zip(w) {
                        *acc = _mm512_dpbusd_epi32(*acc, w, x);
                    }
                }
                words = words.wrapping_add(4);
                q = q.add(N);
            }
            let mut masks = [0; N];
            for g in 0..N {
                let least = _mm512_set1_epi32(thresholds[g]);
                for i in 0..4 {
                    masks[g] |= u64::from(_mm512_cmpgt_epi32_mask(acc[g][i], least)) << (16 * i);
                }
                if masks[g] != 0 {
                    for (i, a) in acc[g].iter().enumerate() {
                        _mm512_storeu_si512(sums[g].as_mut_ptr().add(16 * i).cast(), *a);
                    }
                }
            }
            masks
        }
    }

    #[inline(always)]
    unsafe fn dot(row: &[Line], q: &[i8]) -> i32 {
        assert_eq!(row.len() * 64, q.len());
        // SAFETY: the caller runs on a CPU with these instructions; each load reads one line and one chunk of 64 bytes.
        unsafe {
            let mut acc = _mm512_setzero_si512();
            for (line, q) in row.iter().zip(q.chunks_exact(64)) {
                acc = _mm512_dpbusd_epi32(
                    acc,
                    _mm512_load_si512(line.0.as_ptr().cast()),
                    _mm512_loadu_si512(q.as_ptr().cast()),
                );
            }
            _mm512_reduce_add_epi32(acc)
        }
    }

    #[inline(always)]
    unsafe fn dot32(a: &[[f32; 16]], b: &[[f32; 16]]) -> f32 {
        // SAFETY: the caller runs on a CPU with these instructions; each load reads one array of 16 numbers.
        unsafe {
            let mut acc = _mm512_setzero_ps();
            for (a, b) in a.iter().zip(b) {
                acc = _mm512_fmadd_ps(_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr()), acc);
            }
            _mm512_reduce_add_ps(acc)
        }
    }

    #[inline(always)]
    unsafe fn at_least(values: &[f32; CELL], bar: f32) -> u32 {
        // SAFETY: the caller runs on a CPU with these instructions; the loads read the 32 values, no more.
        unsafe {
            let least = _mm512_set1_ps(bar);
            let low = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_loadu_ps(values.as_ptr()), least);
            let high = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_loadu_ps(values.as_ptr().add(16)), least);
            u32::from(low) | u32::from(high) << 16
        }
    }

    #[inline(always)]
    unsafe fn eighths(a: &[[f64; 8]], b: &[[f32; 8]]) -> [f64; 8] {
        // SAFETY: the caller runs on a CPU with these instructions; each load and the store have an array of eight numbers.
        unsafe {
            let mut acc = _mm512_setzero_pd();
            for (a, b) in a.iter().zip(b) {
                let b = _mm512_cvtps_pd(_mm256_loadu_ps(b.as_ptr()));
                acc = _mm512_add_pd(acc, _mm512_mul_pd(_mm512_loadu_pd(a.as_ptr()), b));
            }
            let mut sums = [0.0; 8];
            _mm512_storeu_pd(sums.as_mut_ptr(), acc);
            sums
        }
    }

    #[inline(always)]
    unsafe fn lanes(rows: &[Lanes], x: &[f32]) -> [f32; CELL] {
        // SAFETY: the caller runs on a CPU with these instructions; each load and store has an array of 32 numbers.
        unsafe {
            // Four chains, for a chain waits for each of its sums.
            let mut acc = [_mm512_setzero_ps(); 4];
            let (pairs, last) = rows.as_chunks::<2>();
            let (numbers, last_number) = x.as_chunks::<2>();
            for ([a, b], [x, y]) in pairs.iter().zip(numbers) {
                let (x, y) = (_mm512_set1_ps(*x), _mm512_set1_ps(*y));
                acc[0] = _mm512_fmadd_ps(_mm512_load_ps(a.0.as_ptr()), x, acc[0]);
                acc[1] = _mm512_fmadd_ps(_mm512_load_ps(a.0.as_ptr().add(16)), x, acc[1]);
                acc[2] = _mm512_fmadd_ps(_mm512_load_ps(b.0.as_ptr()), y, acc[2]);
                acc[3] = _mm512_fmadd_ps(_mm512_load_ps(b.0.as_ptr().add(16)), y, acc[3]);
            }
            for (a, x) in last.iter().zip(last_number) {
                let x = _mm512_set1_ps(*x);
                acc[0] = _mm512_fmadd_ps(_mm512_load_ps(a.0.as_ptr()), x, acc[0]);
                acc[1] = _mm512_fmadd_ps(_mm512_load_ps(a.0.as_ptr().add(16)), x, acc[1]);
            }
            let mut sums = [0f32; CELL];
            _mm512_storeu_ps(sums.as_mut_ptr(), _mm512_add_ps(acc[0], acc[2]));
            _mm512_storeu_ps(sums.as_mut_ptr().add(16), _mm512_add_ps(acc[1], acc[3]));
            sums
        }
    }
}

/// AVX2. `maddubs` sums two products in 16 bits and saturates: 2·127·127 fits, so words have 7 bits.
pub(in super::super) struct Avx2;

#[expect(
    unsafe_code,
    reason = "intrinsics; the caller has checked the CPU, and all loads lie in the slices whose lengths are asserted"
)]
impl Kernel for Avx2 {
    #[inline(always)]
    fn prefetch<T>(line: &T) {
        // SAFETY: a hint; it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) }
    }

    #[inline(always)]
    unsafe fn tile<const N: usize>(tile: &[Line], lengths: &[Line], group: &[i8], thresholds: &[i32; N], sums: &mut Sums<N>) -> [u64; N] {
        let steps = tile.len() / 4;
        assert!(tile.len() == steps * 4 && lengths.len() == 4 && group.len() == (steps + 1) * 4 * N);
        // SAFETY: the caller runs on a CPU with these instructions; each step loads four lines of words and 4 × N bytes of patches, of which the assertion found enough.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut masks = [0u64; N];
            for part in 0..4 {
                let mut acc = [[_mm256_setzero_si256(); 2]; N];
                let mut words = tile.as_ptr().add(part).cast::<__m256i>();
                let mut q = group.as_ptr().cast::<i32>();
                for step in 0..=steps {
                    if step == steps {
                        words = lengths.as_ptr().add(part).cast();
                    }
                    let w = [_mm256_load_si256(words), _mm256_load_si256(words.add(1))];
                    for (g, acc) in acc.iter_mut().enumerate() {
                        let x = _mm256_set1_epi32(q.add(g).read_unaligned());
                        for (acc, w) in acc.iter_mut().zip(w) {
                            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), ones));
                        }
                    }
                    words = words.wrapping_add(8);
                    q = q.add(N);
                }
                for g in 0..N {
                    let least = _mm256_set1_epi32(thresholds[g]);
                    for (i, a) in acc[g].iter().enumerate() {
                        let m = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(*a, least)));
                        masks[g] |= u64::from(m as u8) << (16 * part + 8 * i);
                        _mm256_storeu_si256(sums[g].as_mut_ptr().add(16 * part + 8 * i).cast(), *a);
                    }
                }
            }
            masks
        }
    }

    #[inline(always)]
    unsafe fn dot(row: &[Line], q: &[i8]) -> i32 {
        assert_eq!(row.len() * 64, q.len());
        // SAFETY: the caller runs on a CPU with these instructions; each load reads one line and one chunk of 64 bytes.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut acc = _mm256_setzero_si256();
            for (line, q) in row.iter().zip(q.chunks_exact(64)) {
                for at in [0, 32] {
                    let w = _mm256_load_si256(line.0.as_ptr().add(at).cast());
                    let x = _mm256_loadu_si256(q.as_ptr().add(at).cast());
                    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), ones));
                }
            }
            let mut lanes = [0i32; 8];
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), acc);
            lanes.iter().sum()
        }
    }

    #[inline(always)]
    unsafe fn dot32(a: &[[f32; 16]], b: &[[f32; 16]]) -> f32 {
        // SAFETY: the caller runs on a CPU with these instructions; each load reads one array of 16 numbers.
        unsafe {
            let mut acc = [_mm256_setzero_ps(); 2];
            for (a, b) in a.iter().zip(b) {
                for half in 0..2 {
                    let (a, b) = (a.as_ptr().add(8 * half), b.as_ptr().add(8 * half));
                    acc[half] = _mm256_fmadd_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b), acc[half]);
                }
            }
            let eight = _mm256_add_ps(acc[0], acc[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn at_least(values: &[f32; CELL], bar: f32) -> u32 {
        // SAFETY: the caller runs on a CPU with these instructions; the loads read the 32 values, no more.
        unsafe {
            let least = _mm256_set1_ps(bar);
            let mut mask = 0;
            for part in 0..4 {
                let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(_mm256_loadu_ps(values.as_ptr().add(8 * part)), least);
                mask |= u32::from(_mm256_movemask_ps(reached) as u8) << (8 * part);
            }
            mask
        }
    }

    #[inline(always)]
    unsafe fn lanes(rows: &[Lanes], x: &[f32]) -> [f32; CELL] {
        // SAFETY: the caller runs on a CPU with these instructions; each load and store has an array of 32 numbers.
        unsafe {
            let mut acc = [_mm256_setzero_ps(); 4];
            for (row, x) in rows.iter().zip(x) {
                let x = _mm256_set1_ps(*x);
                for part in 0..4 {
                    acc[part] = _mm256_fmadd_ps(_mm256_load_ps(row.0.as_ptr().add(8 * part)), x, acc[part]);
                }
            }
            let mut sums = [0f32; CELL];
            for part in 0..4 {
                _mm256_storeu_ps(sums.as_mut_ptr().add(8 * part), acc[part]);
            }
            sums
        }
    }
}
