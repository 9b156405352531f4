//! Four inks to three lights.

/// Cyan, magenta, yellow and black, each as the light it leaves over (255 for no ink), to RGB: the product of colour and black, rounded.
/// No colour management, as in Pillow.
pub(super) fn rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    [c, m, y].map(|v| ((u32::from(v) * u32::from(k) + 127) / 255) as u8)
}
