//! What shows where a picture is transparent.

use super::region::PixelRect;

/// The colour that transparent pixels let through. `None`: transparency is dropped and each pixel keeps the colour that it has beneath
/// it, as with Pillow's `convert("RGB")` and OpenCV's `imread`.
pub type Background = Option<[u8; 3]>;

/// A colour and its opacity, 255 for opaque.
pub(super) type Rgba = ([u8; 3], u8);

/// `value` at opacity `alpha` over `background`, rounded.
fn over(value: u8, alpha: u8, background: u8) -> u8 {
    let (v, a, g) = (u32::from(value), u32::from(alpha), u32::from(background));
    ((v * a + g * (255 - a) + 127) / 255) as u8
}

/// Undoes the multiplication of a colour by its opacity, rounding down as Pillow does. What was fully transparent is black.
pub(super) fn divided(rgb: [u8; 3], alpha: u8) -> [u8; 3] {
    match alpha {
        0 => [0; 3],
        255 => rgb,
        a => rgb.map(|v| (255 * u32::from(v) / u32::from(a)).min(255) as u8),
    }
}

/// Fills `out` with the pixels of `part`, each asked for by column and row, as RGB over `background`. Answers whether one was not opaque.
pub(super) fn fill(part: PixelRect, background: Background, out: &mut Vec<u8>, pixel: impl Fn(usize, usize) -> Rgba) -> bool {
    let need = part.rgb_bytes();
    if out.len() < need {
        out.resize(need, 0);
    }
    let mut transparent = false;
    for (row, y) in out[..need].chunks_exact_mut(3 * part.width as usize).zip(part.top as usize..) {
        for (rgb, x) in row.chunks_exact_mut(3).zip(part.left as usize..) {
            let (colour, alpha) = pixel(x, y);
            transparent |= alpha != 255;
            match background {
                Some(background) if alpha != 255 => (0..3).for_each(|c| rgb[c] = over(colour[c], alpha, background[c])),
                _ => rgb.copy_from_slice(&colour),
            }
        }
    }
    transparent
}
