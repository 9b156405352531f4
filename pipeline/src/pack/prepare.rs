//! One file → the bytes that go into a shard: read, checked, decoded, shrunk, encoded.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fast_image_resize::Resizer;
use image::ImageEncoder;
use sha2::{Digest, Sha256};

use super::became::Became;
use super::found::Found;
use super::maps::prepared::{self as prepared_map, PreparedMap};
use super::objects::prepared::{self as prepared_objects, PreparedObjects};
use super::options::{Encoding, PackOptions};
use super::report::Refusal;
use crate::augment::shrink;
use crate::decode::{Decoder, Format, Limits};
use crate::error::SampleError;
use crate::stage::ordered_map::Claim;
use crate::types::Image;

/// Quality of a changed JPEG that is kept as JPEG.
const KEEP_QUALITY: u8 = 92;

/// Bytes that decoding takes per pixel at worst: 16-bit RGBA as the file has it, RGB as stored, RGB upright.
const DECODE_BYTES_PER_PIXEL: u64 = 14;

/// Pixels above which a worker gives its buffers back.
const LARGE_PIXELS: u64 = 8_000_000;

/// Exact sums over pixels, so that statistics do not depend on the order of addition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PixelSums {
    pub(super) images: u64,
    pub(super) pixels: u64,
    pub(super) sum: [u128; 3],
    pub(super) square: [u128; 3],
    pub(super) width: u64,
    pub(super) height: u64,
}

impl PixelSums {
    fn of(image: &Image) -> Self {
        let (mut sum, mut square) = ([0u128; 3], [0u128; 3]);
        for row in image.pixels.chunks(image.width.max(1) as usize * 3) {
            let (mut s, mut q) = ([0u64; 3], [0u64; 3]);
            for pixel in row.chunks_exact(3) {
                for c in 0..3 {
                    let value = u64::from(pixel[c]);
                    s[c] += value;
                    q[c] += value * value;
                }
            }
            for c in 0..3 {
                sum[c] += u128::from(s[c]);
                square[c] += u128::from(q[c]);
            }
        }
        let pixels = u64::from(image.width) * u64::from(image.height);
        Self {
            images: 1,
            pixels,
            sum,
            square,
            width: image.width.into(),
            height: image.height.into(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.images += other.images;
        self.pixels += other.pixels;
        self.width += other.width;
        self.height += other.height;
        for c in 0..3 {
            self.sum[c] += other.sum[c];
            self.square[c] += other.square[c];
        }
    }
}

/// An image ready for the shard.
pub(super) struct Prepared {
    pub(super) bytes: Vec<u8>,
    pub(super) extension: &'static str,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) source_width: u32,
    pub(super) source_height: u32,
    pub(super) source_bytes: u64,
    pub(super) resized: bool,
    pub(super) transparent: bool,
    pub(super) sums: PixelSums,
    pub(super) map: Option<PreparedMap>,
    pub(super) objects: Option<PreparedObjects>,
    /// Start of the file's SHA-256, to find equal files.
    pub(super) content: u128,
}

/// Scratch memory and settings of one worker.
pub(super) struct Preparer {
    options: Arc<PackOptions>,
    limits: Limits,
    decoder: Decoder,
    resizer: Resizer,
    image: Image,
    /// Pixels of the largest picture that the buffers grew to.
    largest: u64,
}

impl Preparer {
    pub(super) fn new(options: Arc<PackOptions>) -> Self {
        let limits = Limits {
            max_pixels: options.max_pixels,
            // The decoder counts the picture in memory too: who allows more pixels means that.
            max_bytes: options.max_bytes.max(options.max_pixels.saturating_mul(4)),
            ..Limits::default()
        };
        Self {
            limits,
            decoder: Decoder::new(limits).over(options.background),
            resizer: Resizer::new(),
            image: Image::default(),
            largest: 0,
            options,
        }
    }

    /// Prepares one file. A panic inside a decoder counts as a corrupt file.
    pub(super) fn prepare(&mut self, found: &Found, claim: &mut Claim<'_>) -> Result<Prepared, Refusal> {
        let result = catch_unwind(AssertUnwindSafe(|| self.try_prepare(found, claim))).unwrap_or_else(|panic| {
            let words = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            *self = Self::new(Arc::clone(&self.options)); // its insides may be half-written
            Err(SampleError::Corrupt {
                detail: format!("the decoder panicked: {}", words.unwrap_or_default()),
            }
            .into())
        });
        if self.largest > LARGE_PIXELS {
            *self = Self::new(Arc::clone(&self.options)); // one huge file must not hold its memory until the end
        }
        let labels =
            |p: &Prepared| p.map.as_ref().map_or(0, |map| map.bytes.len()) + p.objects.as_ref().map_or(0, |objects| objects.bytes.len());
        claim.set(result.as_ref().map_or(0, |p| (p.bytes.len() + labels(p)) as u64));
        result
    }

    fn try_prepare(&mut self, found: &Found, claim: &mut Claim<'_>) -> Result<Prepared, Refusal> {
        let limit = self.options.max_bytes;
        match found.bytes {
            0 => return Err(Refusal::Empty),
            bytes if bytes > limit => return Err(Refusal::TooManyBytes { bytes, limit }),
            bytes => claim.set(bytes),
        }
        let bytes = std::fs::read(&found.path).map_err(|e| Refusal::Unreadable { detail: e.to_string() })?;
        let head = self.decoder.header(&bytes)?;
        let pixels = u64::from(head.width) * u64::from(head.height);
        claim.set(bytes.len() as u64 + pixels * DECODE_BYTES_PER_PIXEL);
        self.largest = self.largest.max(pixels);
        self.decoder.decode(&bytes, &mut self.image)?;
        let transparent = self.decoder.saw_transparency();
        let (source_width, source_height) = (self.image.width, self.image.height);
        let resized = self.shrink();
        let shrunk = (self.image.width, self.image.height);
        let squared = self.options.square && self.letterbox();
        let composited = transparent && self.options.background.is_some();
        let encoding = match (self.options.encode, resized || squared || composited) {
            (Encoding::Keep, false) => None,
            (Encoding::Keep, true) if head.format == Format::Jpeg => Some(Encoding::Jpeg(KEEP_QUALITY)),
            (Encoding::Keep, true) => Some(Encoding::Png),
            (other, _) => Some(other),
        };
        let became = Became {
            shrunk,
            square: squared.then_some(self.image.width),
            as_it_was: encoding.is_none(),
        };
        let map = match found.map.as_ref().zip(self.options.maps.as_ref()) {
            Some((path, of)) => Some(prepared_map::prepare(path, self.limits, of, &head, &became)?),
            None => None,
        };
        let objects = match (&found.objects, &self.options.objects) {
            (Some(picture), Some(_)) => Some(prepared_objects::prepare(picture, &head, &became, &found.shown())?),
            (None, Some(options)) => {
                return Err(Refusal::NoObjects {
                    file: options.file_of(found.val).display().to_string(),
                });
            }
            (_, None) => None,
        };
        let content = u128::from_le_bytes(std::array::from_fn({
            let digest = Sha256::digest(&bytes);
            move |i| digest[i]
        }));
        let source_bytes = bytes.len() as u64;
        let (bytes, extension) = match encoding {
            None => (bytes, extension(head.format)),
            Some(encoding) => encode(&self.image, encoding).map_err(|detail| Refusal::Encode { detail })?,
        };
        Ok(Prepared {
            bytes,
            extension,
            width: self.image.width,
            height: self.image.height,
            source_width,
            source_height,
            source_bytes,
            resized,
            transparent,
            sums: PixelSums::of(&self.image),
            map,
            objects,
            content,
        })
    }

    /// Shrinks the image at hand to the longest side asked for; answers whether it did.
    fn shrink(&mut self) -> bool {
        let Some(side) = self.options.longest_side else { return false };
        let (width, height) = (self.image.width, self.image.height);
        let longest = width.max(height);
        if longest <= side {
            return false;
        }
        let scale = |x: u32| ((u64::from(x) * u64::from(side) + u64::from(longest) / 2) / u64::from(longest)).max(1) as u32;
        let (w, h) = (scale(width), scale(height));
        let pixels = shrink(&mut self.resizer, &self.image.pixels, (width, height), (w, h));
        self.image = Image {
            width: w,
            height: h,
            pixels,
        };
        true
    }

    /// Centres the image at hand on a white square; answers whether that changed it.
    fn letterbox(&mut self) -> bool {
        let (w, h) = (self.image.width as usize, self.image.height as usize);
        let side = w.max(h);
        if w == h {
            return false;
        }
        let mut pixels = vec![255u8; side * side * 3];
        let (left, top) = ((side - w) / 2, (side - h) / 2);
        for (y, row) in self.image.pixels.chunks_exact(w * 3).enumerate() {
            let at = ((top + y) * side + left) * 3;
            pixels[at..at + row.len()].copy_from_slice(row);
        }
        self.image = Image {
            width: side as u32,
            height: side as u32,
            pixels,
        };
        true
    }
}

/// File extension of a format.
fn extension(format: Format) -> &'static str {
    match format {
        Format::Jpeg => "jpg",
        Format::Png => "png",
        Format::WebP => "webp",
        Format::Gif => "gif",
        Format::Bmp => "bmp",
        Format::Tiff => "tiff",
    }
}

/// Encodes an image; answers its bytes and file extension, or the encoder's words.
fn encode(image: &Image, encoding: Encoding) -> Result<(Vec<u8>, &'static str), String> {
    let (width, height) = (image.width, image.height);
    let mut bytes = Vec::new();
    let text = |e: image::ImageError| e.to_string();
    match encoding {
        Encoding::Jpeg(quality) => {
            let subsamp = if quality < 90 {
                turbojpeg::Subsamp::Sub2x2
            } else {
                turbojpeg::Subsamp::None
            };
            let pixels = turbojpeg::Image {
                pixels: image.pixels.as_slice(),
                width: width as usize,
                pitch: width as usize * 3,
                height: height as usize,
                format: turbojpeg::PixelFormat::RGB,
            };
            let jpeg = turbojpeg::compress(pixels, quality.into(), subsamp).map_err(|e| e.to_string())?;
            Ok((jpeg.to_vec(), "jpg"))
        }
        Encoding::Webp => {
            let encoder = image::codecs::webp::WebPEncoder::new_lossless(Cursor::new(&mut bytes));
            encoder
                .write_image(&image.pixels, width, height, image::ExtendedColorType::Rgb8)
                .map_err(text)?;
            Ok((bytes, "webp"))
        }
        Encoding::Png | Encoding::Keep => {
            use image::codecs::png::{CompressionType, FilterType, PngEncoder};
            let encoder = PngEncoder::new_with_quality(Cursor::new(&mut bytes), CompressionType::Default, FilterType::Adaptive);
            encoder
                .write_image(&image.pixels, width, height, image::ExtendedColorType::Rgb8)
                .map_err(text)?;
            Ok((bytes, "png"))
        }
    }
}
