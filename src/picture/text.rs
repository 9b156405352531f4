//! Words in pictures, in letters of eight pixels.

use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage};

/// Side of a letter, pixels.
pub const LETTER: u32 = 8;

const INK: Rgb<u8> = Rgb([60, 60, 60]);

/// Writes a line whose first letter has its upper left corner at (`x`, `y`); what lies outside of the picture is left out, and a letter that the font lacks
/// is a question mark.
pub fn write(picture: &mut RgbImage, text: &str, x: u32, y: u32) {
    for (i, letter) in text.chars().enumerate() {
        let glyph = font8x8::BASIC_FONTS
            .get(letter)
            .or_else(|| font8x8::LATIN_FONTS.get(letter))
            .or_else(|| font8x8::BASIC_FONTS.get('?'));
        let Some(glyph) = glyph else { continue };
        for (row, bits) in (0u32..).zip(glyph) {
            for column in (0..LETTER).filter(|c| bits >> c & 1 == 1) {
                let at = (x + i as u32 * LETTER + column, y + row);
                if at.0 < picture.width() && at.1 < picture.height() {
                    picture.put_pixel(at.0, at.1, INK);
                }
            }
        }
    }
}
