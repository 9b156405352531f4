//! Label maps: pictures whose pixels are numbers of classes. Their numbers are read as the file holds them, never as colours.

use std::io::Cursor;
use std::sync::Arc;

use ::png::{BitDepth, ColorType, Transformations};

use crate::error::SampleError;
use crate::types::{RawSample, UNLABELLED};

use super::header::{Header, Lies};
use super::limits::Limits;
use super::orientation::Orientation;
use super::png;

/// What the numbers of label maps mean: those of `[data]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapReading {
    /// Extension of the member, for messages.
    pub member: Arc<str>,
    /// The number that says nothing about its pixel.
    pub ignore: u32,
    /// Whether 0 says nothing too, and the first class is 1.
    pub reduce_zero: bool,
}

impl Default for MapReading {
    fn default() -> Self {
        Self {
            member: "seg.png".into(),
            ignore: 255,
            reduce_zero: false,
        }
    }
}

/// The classes of a picture's pixels, as they lie in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Class of each pixel, row-major; [`UNLABELLED`] where nothing is said.
    pub classes: Vec<i16>,
    /// How the file says that it is turned upright.
    orientation: Orientation,
}

/// The most that a class may be: numbers are kept in 16 bits with a sign.
const LARGEST: u16 = i16::MAX as u16;

impl LabelMap {
    /// Reads a PNG of palette indices or grey values of 1, 2, 4, 8 or 16 bits.
    ///
    /// # Errors
    /// `BadMap` for another file, colours, a cut or broken one, a number above 32767; `TooLarge`.
    pub fn read(bytes: &[u8], reading: &MapReading, limits: Limits) -> Result<Self, SampleError> {
        let bad = |detail: String| SampleError::BadMap { detail };
        if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Err(bad(
                "not a PNG: maps are PNGs of palette indices or grey values, which keep numbers as they are".into(),
            ));
        }
        let mut decoder = ::png::Decoder::new_with_limits(
            Cursor::new(bytes),
            ::png::Limits {
                bytes: usize::try_from(limits.max_bytes).unwrap_or(usize::MAX),
            },
        );
        decoder.set_transformations(Transformations::IDENTITY);
        let mut reader = decoder.read_info().map_err(|e| bad(e.to_string()))?;
        let (width, height) = (reader.info().width, reader.info().height);
        if u64::from(width) * u64::from(height) > limits.max_pixels {
            let limit = format!("{} pixels (a label map)", limits.max_pixels);
            return Err(SampleError::TooLarge { width, height, limit });
        }
        let (colour, depth) = (reader.info().color_type, reader.info().bit_depth);
        if !matches!(colour, ColorType::Indexed | ColorType::Grayscale) {
            return Err(bad(format!(
                "its pixels are colours ({colour:?}), not numbers: a map is a PNG with a palette, or in grey values that are the numbers of the classes"
            )));
        }
        let size = reader
            .output_buffer_size()
            .ok_or_else(|| bad("too large for this machine".into()))?;
        let mut rows = vec![0; size];
        let frame = reader.next_frame(&mut rows).map_err(|e| bad(e.to_string()))?;
        let mut classes = Vec::with_capacity(width as usize * height as usize);
        let mut too_large = None;
        let mut class = |value: u16| {
            let from = u16::from(reading.reduce_zero);
            classes.push(match value {
                _ if u32::from(value) == reading.ignore || value < from => UNLABELLED,
                _ if value - from > LARGEST => {
                    too_large = Some(value);
                    UNLABELLED
                }
                _ => (value - from) as i16,
            });
        };
        for row in rows.chunks_exact(frame.line_size.max(1)) {
            match depth {
                BitDepth::Eight => row.iter().for_each(|value| class((*value).into())),
                BitDepth::Sixteen => row.chunks_exact(2).for_each(|pair| class(u16::from_be_bytes([pair[0], pair[1]]))),
                // The first pixel stands in the uppermost bits.
                _ => {
                    let bits = depth as usize;
                    (0..width as usize).for_each(|x| {
                        let byte = row[x * bits / 8];
                        let shift = 8 - bits - x * bits % 8;
                        class(u16::from(byte >> shift & ((1 << bits) - 1)));
                    });
                }
            }
        }
        if let Some(value) = too_large {
            return Err(bad(format!("number {value}: classes may be 0 to {LARGEST}")));
        }
        Ok(Self {
            width,
            height,
            classes,
            orientation: png::metadata(bytes).orientation(),
        })
    }

    /// The map of a sample whose picture has this header, and how the map is turned upright.
    ///
    /// # Errors
    /// `NoMap`, those of [`LabelMap::read`] and [`LabelMap::lies`].
    pub fn of_sample(raw: &RawSample, header: &Header, reading: &MapReading, limits: Limits) -> Result<(Self, Orientation), SampleError> {
        let bytes = raw.map.as_ref().ok_or_else(|| SampleError::NoMap {
            member: reading.member.to_string(),
        })?;
        let map = Self::read(bytes, reading, limits)?;
        let orientation = map.lies(header)?;
        Ok((map, orientation))
    }

    /// How the map is turned upright so that it lies on the upright picture of this header. A picture that its file turns (EXIF) may have been labelled as
    /// it is stored or as it is seen; the sizes tell which, where rows and columns are exchanged and differ.
    ///
    /// # Errors
    /// `MapSize` for a map of another size, and for one of which nothing tells how it lies.
    pub fn lies(&self, header: &Header) -> Result<Orientation, SampleError> {
        let (upright, stored) = (header.upright(), (header.width, header.height));
        let size = (self.width, self.height);
        let refused = |detail: &str| {
            Err(SampleError::MapSize {
                map_width: self.width,
                map_height: self.height,
                width: upright.0,
                height: upright.1,
                detail: detail.into(),
            })
        };
        let alike = self.orientation == header.orientation;
        match header.lies(size) {
            Lies::OtherSize => refused(""),
            _ if header.orientation.is_upright() && !alike => {
                refused(": the map's file says that it is turned (EXIF), the picture's does not")
            }
            _ if alike && size == stored => Ok(header.orientation),
            Lies::By(orientation) => Ok(orientation),
            Lies::Unknown => refused(
                ": the picture's file turns it (EXIF), and nothing says whether the map was made of the turned picture; store the picture upright, or give the map the same EXIF orientation",
            ),
        }
    }

    /// The map turned upright, by what [`LabelMap::lies`] answered.
    #[must_use]
    pub fn upright(&self, orientation: Orientation) -> Self {
        let (width, height) = orientation.size(self.width, self.height);
        let (start, step_x, step_y) = orientation.walk(self.width as usize, self.height as usize);
        let at = |x: u32, y: u32| (start + x as isize * step_x + y as isize * step_y) as usize;
        Self {
            width,
            height,
            classes: (0..height)
                .flat_map(|y| (0..width).map(move |x| (x, y)))
                .map(|(x, y)| self.classes[at(x, y)])
                .collect(),
            orientation: Orientation::default(),
        }
    }

    /// A map of these classes that is turned by nothing.
    #[must_use]
    pub fn new(width: u32, height: u32, classes: Vec<i16>) -> Self {
        Self {
            width,
            height,
            classes,
            orientation: Orientation::default(),
        }
    }

    /// As a PNG of grey values, of 8 bits where these hold all classes and `ignore`, else of 16; [`UNLABELLED`] as `ignore`.
    ///
    /// # Panics
    /// If there are not as many classes as pixels, or `ignore` does not fit into 16 bits.
    #[must_use]
    pub fn to_png(&self, ignore: u32) -> Vec<u8> {
        self.written(ignore, None)
    }

    /// The same with a palette that shows each class in its colour, as long as 8 bits hold them.
    ///
    /// # Panics
    /// As [`LabelMap::to_png`].
    #[must_use]
    pub fn to_coloured_png(&self, ignore: u32, colour: impl Fn(usize) -> [u8; 3]) -> Vec<u8> {
        self.written(ignore, Some((0..256).flat_map(colour).collect()))
    }

    fn written(&self, ignore: u32, palette: Option<Vec<u8>>) -> Vec<u8> {
        let value = |class: &i16| u16::try_from(*class).unwrap_or_else(|_| u16::try_from(ignore).expect("at most 65535"));
        let wide = self.classes.iter().map(value).any(|value| value > 255);
        let mut bytes = vec![];
        let mut encoder = ::png::Encoder::new(&mut bytes, self.width, self.height);
        match palette.filter(|_| !wide) {
            Some(palette) => {
                encoder.set_color(ColorType::Indexed);
                encoder.set_palette(palette);
            }
            None => encoder.set_color(ColorType::Grayscale),
        }
        encoder.set_depth(if wide { BitDepth::Sixteen } else { BitDepth::Eight });
        let data: Vec<u8> = match wide {
            true => self.classes.iter().flat_map(|class| value(class).to_be_bytes()).collect(),
            false => self.classes.iter().map(|class| value(class) as u8).collect(),
        };
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&data));
        written.expect("memory takes all bytes, and there is a class for each pixel");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_of(colour: ColorType, depth: BitDepth, width: u32, height: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![];
        let mut encoder = ::png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == ColorType::Indexed {
            // Colours that are not the indices, so that a reader of colours is found out.
            encoder.set_palette(
                (0..=255u8)
                    .flat_map(|i| [255 - i, 7, i / 2])
                    .take(3 << depth as usize)
                    .collect::<Vec<_>>(),
            );
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<i16>, SampleError> {
        LabelMap::read(bytes, &MapReading::default(), Limits::default()).map(|map| map.classes)
    }

    #[test]
    fn palettes_and_few_bits_are_numbers_and_never_colours() {
        for colour in [ColorType::Indexed, ColorType::Grayscale] {
            for (depth, data, expected) in [
                (BitDepth::One, vec![0b1010_0000, 0b0110_0000], vec![1, 0, 1, 0, 1, 1]),
                (BitDepth::Two, vec![0b1100_0100, 0b0110_1100], vec![3, 0, 1, 1, 2, 3]),
                (BitDepth::Four, vec![0xf0, 0x20, 0x13, 0x90], vec![15, 0, 2, 1, 3, 9]),
                (BitDepth::Eight, vec![0, 1, 200, 254, 255, 3], vec![0, 1, 200, 254, -1, 3]),
            ] {
                assert_eq!(read(&png_of(colour, depth, 3, 2, &data)).unwrap(), expected, "{colour:?} {depth:?}");
            }
        }
        let wide = png_of(ColorType::Grayscale, BitDepth::Sixteen, 3, 1, &[0, 255, 1, 2, 0x7f, 0xff]);
        assert_eq!(read(&wide).unwrap(), [-1, 258, 32767]);
    }

    #[test]
    fn what_is_no_map_is_refused_in_words() {
        let told = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(told(&png_of(ColorType::Rgb, BitDepth::Eight, 1, 1, &[1, 2, 3])).contains("its pixels are colours (Rgb), not numbers"));
        assert!(told(b"\xff\xd8\xff\xe0").contains("not a PNG"));
        let whole = png_of(ColorType::Grayscale, BitDepth::Eight, 40, 40, &[3; 1600]);
        assert_eq!(read(&whole[..whole.len() - 30]).unwrap_err().reason(), "bad_map");
        let wide = png_of(ColorType::Grayscale, BitDepth::Sixteen, 1, 1, &[0x80, 0]);
        assert!(told(&wide).contains("number 32768: classes may be 0 to 32767"));
        let limits = Limits {
            max_pixels: 100,
            ..Limits::default()
        };
        let large = LabelMap::read(&whole, &MapReading::default(), limits).unwrap_err();
        assert_eq!(large.reason(), "too_large");
    }

    #[test]
    fn numbers_mean_what_the_settings_say_and_come_back_as_they_were() {
        let bytes = png_of(ColorType::Grayscale, BitDepth::Eight, 4, 1, &[0, 1, 9, 255]);
        let reading = |ignore, reduce_zero| MapReading {
            ignore,
            reduce_zero,
            ..MapReading::default()
        };
        let classes = |reading: &MapReading| LabelMap::read(&bytes, reading, Limits::default()).unwrap().classes;
        assert_eq!(classes(&reading(255, true)), [-1, 0, 8, -1]);
        assert_eq!(classes(&reading(9, false)), [0, 1, -1, 255]);
        for most in [3, 300] {
            let map = LabelMap::new(3, 2, vec![0, 1, -1, 2, most, -1]);
            assert_eq!(read(&map.to_png(255)).unwrap(), map.classes);
            assert_eq!(read(&map.to_coloured_png(255, |class| [class as u8 ^ 9; 3])).unwrap(), map.classes);
        }
    }
}
