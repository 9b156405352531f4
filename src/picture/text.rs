//! Words in pictures, in letters of eight pixels.

use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage};

/// Side of a letter, pixels.
pub const LETTER: u32 = 8;

const INK: Rgb<u8> = Rgb([60, 60, 60]);

/// The lines into which a text falls where each has room for `letters`: broken between words, and within a word that is longer than a line.
pub(super) fn wrapped(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word: Vec<char> = word.chars().collect();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.len() <= letters => {
                line.push(' ');
                line.extend(&word);
            }
            _ => lines.extend(word.chunks(letters.max(1)).map(String::from_iter)),
        }
    }
    lines
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_in_words_that_are_too_long() {
        assert_eq!(wrapped("where the patches look", 9), ["where the", "patches", "look"]);
        assert_eq!(wrapped("a reconstruction", 8), ["a", "reconstr", "uction"]);
        assert_eq!(wrapped("", 8), [""; 0]);
    }
}
