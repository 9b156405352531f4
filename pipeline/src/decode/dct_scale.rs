//! How much a JPEG may be reduced while it is decoded.
//!
//! libjpeg-turbo computes 1/2, 1/4 or 1/8 of a picture's pixels from the same coefficients in a fraction of the time. A crop is taken at
//! the smallest of these scales at which it is still at least as large as the view made of it, so that resampling only ever shrinks.

/// The largest of 8, 4, 2, 1 by which a picture may be divided so that a crop of `width` × `height` of its pixels keeps at least `side`
/// pixels each way.
pub(super) fn divisor(width: f64, height: f64, side: u32) -> u32 {
    let shorter = width.min(height);
    [8u32, 4, 2].into_iter().find(|&d| shorter >= f64::from(d * side)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::divisor;

    #[test]
    fn a_crop_stays_as_large_as_its_view() {
        for (width, height, side, wanted) in [
            (1792.0, 2000.0, 224, 8),
            (1791.9, 2000.0, 224, 4),
            (2000.0, 896.0, 224, 4),
            (448.0, 448.0, 224, 2),
            (447.0, 9000.0, 224, 1),
            (10.0, 10.0, 224, 1),
        ] {
            assert_eq!(divisor(width, height, side), wanted, "{width} × {height} to {side}");
        }
    }
}
