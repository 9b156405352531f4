//! One picture after the other, each by the way of its format.

use image::ColorType;

use crate::error::SampleError;
use crate::types::Image;

use super::format::Format;
use super::header::{Header, header_within};
use super::jpeg::Turbo;
use super::limits::Limits;
use super::orientation;
use super::region::{PixelRect, Rect, Window};
use super::transparency::Background;
use super::{gif, raster, tiff};

/// Decodes one image after the other, keeping its buffers. One per thread.
pub struct Decoder {
    limits: Limits,
    background: Background,
    own_entropy_decoder: bool,
    turbo: Option<Turbo>,
    /// Pixels of the last window, RGB; grows to the largest need.
    window: Vec<u8>,
    /// Pixels of the last raster file in its own format.
    native: Vec<u8>,
    transparent: bool,
}

impl Decoder {
    /// A decoder that refuses what exceeds `limits` and drops transparency.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            background: None,
            own_entropy_decoder: true,
            turbo: None,
            window: vec![],
            native: vec![],
            transparent: false,
        }
    }

    /// The same, that lays transparent pictures over `background`.
    #[must_use]
    pub fn over(mut self, background: Background) -> Self {
        self.background = background;
        self
    }

    /// The same, that leaves JPEGs to libjpeg-turbo: what the `entropy` benchmark compares with.
    #[doc(hidden)]
    #[must_use]
    pub fn by_libjpeg_turbo_alone(mut self) -> Self {
        self.own_entropy_decoder = false;
        self
    }

    /// Whether a pixel that was decoded last is not opaque.
    #[must_use]
    pub fn saw_transparency(&self) -> bool {
        self.transparent
    }

    /// [`header`](super::header), refused if it promises more than the limits allow.
    ///
    /// # Errors
    /// As [`header`](super::header), and `TooLarge`.
    pub fn header(&self, bytes: &[u8]) -> Result<Header, SampleError> {
        let header = header_within(bytes, self.limits)?;
        header.check(bytes, self.limits)?;
        Ok(header)
    }

    /// Decodes the whole picture, upright, RGB, without colour management: profiles are ignored, inks multiplied.
    ///
    /// # Errors
    /// Any [`SampleError`] but `TwoImages` and `TooManyBytes`; `out` is then unspecified.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Image) -> Result<(), SampleError> {
        let header = self.header(bytes)?;
        let all = Rect {
            x: 0.0,
            y: 0.0,
            width: header.width.into(),
            height: header.height.into(),
        };
        self.window(bytes, &header, all, 1)?;
        let n = header.width as usize * header.height as usize * 3;
        (out.width, out.height) = header.upright();
        if header.orientation.is_upright() {
            out.pixels.clear();
            out.pixels.extend_from_slice(&self.window[..n]);
        } else {
            orientation::upright(header.orientation, &self.window[..n], header.width, header.height, &mut out.pixels);
        }
        Ok(())
    }

    /// Decodes at least the part `want` of the stored picture (coordinates before orientation and reduction), reduced by `denom`
    /// (1, or what [`Header::reduction`] answered).
    ///
    /// At `denom` 1 the pixels of `want` are those of the whole picture bit for bit.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn window(&mut self, bytes: &[u8], header: &Header, want: Rect, denom: u32) -> Result<Window<'_>, SampleError> {
        header.check(bytes, self.limits)?;
        let denom = if header.jpeg.is_some() { denom } else { 1 };
        let part = want.pixels(denom, header.width, header.height);
        let (limits, background) = (self.limits, self.background);
        let (native, window) = (&mut self.native, &mut self.window);
        self.transparent = false;
        let mut placed = part;
        match (&header.jpeg, header.format) {
            (Some(jpeg), _) => {
                let all = part.width == header.width.div_ceil(denom) && part.height == header.height.div_ceil(denom);
                let own = self.own_entropy_decoder;
                let turbo = self.turbo.get_or_insert_with(|| Turbo::new(own));
                placed = turbo.decode(bytes, jpeg, (!all).then_some(part), denom, window)?;
            }
            (None, Format::Gif) => self.transparent = gif::decode(bytes, limits, part, background, native, window)?,
            (None, Format::Tiff) => self.transparent = tiff::decode(bytes, limits, part, background, native, window)?,
            (None, format) => match raster::decode(format, bytes, limits, native)? {
                ColorType::Rgb8 => {
                    std::mem::swap(native, window);
                    placed = PixelRect::whole(header.width, header.height);
                }
                colour => self.transparent = raster::to_rgb(colour, native, header.width, part, background, window)?,
            },
        }
        Ok(Window {
            pixels: &self.window[..placed.rgb_bytes()],
            placed,
            denom,
            stored: (header.width, header.height),
        })
    }
}
