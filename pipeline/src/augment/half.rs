//! The half-size copy that visual words are computed of.

/// Halves a view: u8 planar 3×`side`×`side` → 3×`side`/2×`side`/2, each pixel the mean of 2×2, rounded half up.
///
/// `side` is even. BEiT makes its tokenizer's 112-pixel picture by a second, Lanczos resize of the same crop, and SplitMask presumably does
/// too (arXiv 2112.10740 §3.3 only gives 8×8 patches). Deviation: the box mean of the finished view, so that words always describe the
/// very pixels that the model sees, colour changes included, at a fraction of the cost.
///
/// # Panics
/// If `view` is not 3×`side`×`side` bytes or `side` is odd.
pub fn half_size(view: &[u8], side: usize, out: &mut Vec<u8>) {
    assert_eq!((view.len(), side % 2), (3 * side * side, 0), "planar view of even side");
    let half = side / 2;
    out.resize(3 * half * half, 0);
    if half == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(view: &[u8], side: usize, out: &mut [u8]) {
            halve(view, side, out);
        }
        #[expect(unsafe_code, reason = "the same code compiled for wider registers")]
        // SAFETY: the CPU has AVX2.
        return unsafe { wide(view, side, out) };
    }
    halve(view, side, out);
}

#[inline(always)]
fn halve(view: &[u8], side: usize, out: &mut [u8]) {
    // Two neighbours are read as one 16-bit number and added as its halves, which compilers turn into whole registers.
    let pair = |p: &[u8; 2]| {
        let v = u16::from_le_bytes(*p);
        (v & 255) + (v >> 8)
    };
    for (rows, out) in view.chunks_exact(2 * side).zip(out.chunks_exact_mut(side / 2)) {
        let (upper, lower) = rows.split_at(side);
        for ((o, u), l) in out.iter_mut().zip(upper.as_chunks::<2>().0).zip(lower.as_chunks::<2>().0) {
            *o = ((pair(u) + pair(l) + 2) >> 2) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pixel_is_the_rounded_mean_of_four_of_its_own_plane() {
        let side = 6;
        let view: Vec<u8> = (0..3 * side * side).map(|i| (i * 37 % 256) as u8).collect();
        let mut out = vec![1; 1000];
        half_size(&view, side, &mut out);
        assert_eq!(out.len(), 27);
        for plane in 0..3 {
            for y in 0..3 {
                for x in 0..3 {
                    let at = |dy: usize, dx: usize| f64::from(view[plane * 36 + (2 * y + dy) * 6 + 2 * x + dx]);
                    let mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
                    assert_eq!(f64::from(out[plane * 9 + y * 3 + x]), (mean + 0.5).floor());
                }
            }
        }
    }
}
