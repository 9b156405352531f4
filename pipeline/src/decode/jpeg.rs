//! JPEG through libjpeg-turbo 3: the wanted region only, at the DCT scale asked for. The common kind goes the fast way of
//! [`super::baseline`]; all others, and whatever that way refuses, are decoded and judged here.

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;

use turbojpeg_sys as tj;

use crate::error::SampleError;

use super::baseline::Baseline;
use super::ink;
use super::jpeg_header::JpegHeader;
use super::region::{PixelRect, Placed};

/// Scans after which a progressive JPEG counts as an attack on the clock; encoders write about ten.
const MAX_SCANS: c_int = 50;

/// Columns and rows decoded around the wanted ones, so that smooth chroma upsampling sees the neighbours it would see in the whole picture.
const MARGIN: u32 = 2;

/// A libjpeg-turbo decompressor and the buffers beside it.
pub(super) struct Turbo {
    handle: NonNull<c_void>,
    /// `None`: libjpeg-turbo alone.
    baseline: Option<Baseline>,
    /// CMYK pixels on their way to RGB.
    cmyk: Vec<u8>,
}

#[expect(
    unsafe_code,
    reason = "the handle is used by one owner at a time; libjpeg-turbo keeps no thread-bound state in it"
)]
// SAFETY: a TurboJPEG instance may move between threads as long as calls do not overlap, which `&mut self` ensures.
unsafe impl Send for Turbo {}

impl Drop for Turbo {
    fn drop(&mut self) {
        close(self.handle);
    }
}

#[expect(unsafe_code, reason = "foreign constructor")]
fn open() -> NonNull<c_void> {
    // SAFETY: no arguments to get wrong; NULL means out of memory and is checked. The handle is valid for tj3Set.
    unsafe {
        let handle = tj::tj3Init(tj::TJINIT_TJINIT_DECOMPRESS as c_int);
        let Some(handle) = NonNull::new(handle.cast()) else {
            handle_alloc_error(Layout::new::<[u8; 4096]>());
        };
        tj::tj3Set(handle.as_ptr(), tj::TJPARAM_TJPARAM_SCANLIMIT as c_int, MAX_SCANS);
        handle
    }
}

#[expect(unsafe_code, reason = "foreign destructor")]
fn close(handle: NonNull<c_void>) {
    // SAFETY: called once for each handle that `open` made.
    unsafe { tj::tj3Destroy(handle.as_ptr()) }
}

/// What libjpeg's words mean for the sample.
fn refusal(words: &str) -> SampleError {
    let detail = words.replace('\n', " ");
    if words.contains("scans") {
        SampleError::TooExpensive { detail }
    } else if words.contains("Premature end") || words.contains("premature end") {
        SampleError::Truncated { detail }
    } else if [
        "nsupported",
        "not supported",
        "not implemented",
        "Not implemented",
        "Could not determine",
        "Sorry",
    ]
    .iter()
    .any(|w| words.contains(w))
    {
        SampleError::Unsupported { detail }
    } else {
        SampleError::Corrupt { detail }
    }
}

/// Warnings that leave every pixel right.
fn is_benign(words: &str) -> bool {
    ["extraneous bytes", "Invalid SOS parameters", "Unknown Adobe", "unknown JFIF"]
        .iter()
        .any(|w| words.contains(w))
}

/// Warnings of a file whose end is known to be missing.
fn is_cut(words: &str, header: &JpegHeader) -> bool {
    header.cut && (words.contains("Premature end") || words.contains("premature end"))
}

impl Turbo {
    pub(super) fn new(own_entropy_decoder: bool) -> Self {
        Self {
            handle: open(),
            baseline: own_entropy_decoder.then(Baseline::new),
            cmyk: vec![],
        }
    }

    /// A fresh handle: libjpeg-turbo leaves one whose header could not be read in the middle of that header.
    fn reopen(&mut self) {
        let old = std::mem::replace(&mut self.handle, open());
        close(old);
    }

    #[expect(unsafe_code, reason = "foreign call")]
    fn set(&mut self, parameter: c_int, value: c_int) {
        // SAFETY: the handle is valid; a refused value only sets its error string.
        unsafe { tj::tj3Set(self.handle.as_ptr(), parameter, value) };
    }

    #[expect(unsafe_code, reason = "foreign call")]
    fn get(&self, parameter: c_int) -> c_int {
        // SAFETY: the handle is valid.
        unsafe { tj::tj3Get(self.handle.as_ptr(), parameter) }
    }

    #[expect(unsafe_code, reason = "foreign string")]
    fn words(&self) -> String {
        // SAFETY: the handle is valid; the string is NUL-terminated and copied before the next call.
        unsafe { CStr::from_ptr(tj::tj3GetErrorStr(self.handle.as_ptr())) }
            .to_string_lossy()
            .into_owned()
    }

    /// Decodes `want` (pixels of the scaled picture; `None` = all) at scale 1/`denom` as RGB.
    ///
    /// `out` grows to the need and never shrinks. The answer says which part of the scaled picture lies in it: at least `want`.
    ///
    /// # Errors
    /// Truncated, corrupt, unsupported or too many scans; the pixels are then unusable.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        header: &JpegHeader,
        want: Option<PixelRect>,
        denom: u32,
        out: &mut Vec<u8>,
    ) -> Result<Placed, SampleError> {
        if let Some(baseline) = self.baseline.as_mut().filter(|_| header.common) {
            let (width, height) = (header.width.div_ceil(denom), header.height.div_ceil(denom));
            let region = want.map_or(PixelRect::whole(width, height), |want| widened(want, width, height));
            if let Some(placed) = baseline.decode(bytes, header, region, denom, out) {
                return Ok(placed);
            }
        }
        match self.attempt(bytes, header, want, denom, out, true) {
            Ok(placed) => Ok(placed),
            // Stopping at the first warning told which it is; a harmless one is worth a second run to the end.
            // So is one that says what is known: the file ends early.
            Err((words, _)) if is_benign(&words) || is_cut(&words, header) => match self.attempt(bytes, header, want, denom, out, false) {
                Ok(placed) => Ok(placed),
                Err((words, Some(placed))) if is_benign(&words) || is_cut(&words, header) => Ok(placed),
                Err((words, _)) => Err(refusal(&words)),
            },
            Err((words, _)) => Err(refusal(&words)),
        }
    }

    /// One run of the decompressor. A failure comes with libjpeg's words, and with the place of the pixels if decoding had begun.
    #[expect(unsafe_code, reason = "foreign calls")]
    fn attempt(
        &mut self,
        bytes: &[u8],
        header: &JpegHeader,
        want: Option<PixelRect>,
        denom: u32,
        out: &mut Vec<u8>,
        stop_on_warning: bool,
    ) -> Result<Placed, (String, Option<Placed>)> {
        let handle = self.handle.as_ptr();
        let whole = tj::tjregion { x: 0, y: 0, w: 0, h: 0 };
        let scale = tj::tjscalingfactor {
            num: 1,
            denom: denom as c_int,
        };
        self.set(tj::TJPARAM_TJPARAM_STOPONWARNING as c_int, 0);
        // SAFETY: the handle is valid and `bytes` outlives the call.
        let status = unsafe {
            tj::tj3SetCroppingRegion(handle, whole);
            tj::tj3SetScalingFactor(handle, scale);
            tj::tj3DecompressHeader(handle, bytes.as_ptr(), bytes.len() as _)
        };
        if status != 0 {
            let words = self.words();
            if !is_benign(&words) {
                self.reopen();
                return Err((words, None));
            }
        }
        self.set(tj::TJPARAM_TJPARAM_STOPONWARNING as c_int, c_int::from(stop_on_warning));
        let width = self.get(tj::TJPARAM_TJPARAM_JPEGWIDTH as c_int).max(0) as u32;
        let height = self.get(tj::TJPARAM_TJPARAM_JPEGHEIGHT as c_int).max(0) as u32;
        // The buffer's size rests on what libjpeg itself read, so that no disagreement with our own parser can overrun it.
        if (width, height) != (header.width, header.height) {
            return Err((
                format!("JPEG header read as {width}×{height} and {}×{}", header.width, header.height),
                None,
            ));
        }
        let (scaled_width, scaled_height) = (width.div_ceil(denom), height.div_ceil(denom));
        let mut placed = Placed::whole(scaled_width, scaled_height);
        let subsampling = self.get(tj::TJPARAM_TJPARAM_SUBSAMP as c_int);
        if let (Some(want), Some(mcu), false) = (want, mcu_columns(subsampling), header.lossless) {
            let mcu = mcu.div_ceil(denom);
            let want = widened(want, scaled_width, scaled_height);
            placed = Placed {
                left: want.left / mcu * mcu,
                top: want.top,
                width: want.right() - want.left / mcu * mcu,
                height: want.height,
            };
            let region = tj::tjregion {
                x: placed.left as c_int,
                y: placed.top as c_int,
                w: placed.width as c_int,
                h: placed.height as c_int,
            };
            // SAFETY: the handle is valid and holds this picture's header.
            if unsafe { tj::tj3SetCroppingRegion(handle, region) } != 0 {
                return Err((self.words(), None));
            }
        }
        let pixels = placed.width as usize * placed.height as usize;
        let four = header.components == 4;
        let mut cmyk = std::mem::take(&mut self.cmyk);
        let (buffer, format, size) = if four {
            (&mut cmyk, tj::TJPF_TJPF_CMYK, 4)
        } else {
            (&mut *out, tj::TJPF_TJPF_RGB, 3)
        };
        if buffer.len() < pixels * size {
            buffer.resize(pixels * size, 0);
        }
        // SAFETY: the handle is valid; the buffer holds the whole region at this pixel format with the pitch 0 = width × pixel size.
        let status = unsafe { tj::tj3Decompress8(handle, bytes.as_ptr(), bytes.len() as _, buffer.as_mut_ptr(), 0, format as c_int) };
        if four {
            inks_to_rgb(&cmyk[..pixels * 4], out);
        }
        self.cmyk = cmyk;
        if status != 0 {
            return Err((self.words(), Some(placed)));
        }
        Ok(placed)
    }
}

/// A part with its margin, within the picture.
fn widened(want: PixelRect, width: u32, height: u32) -> PixelRect {
    let (left, top) = (want.left.saturating_sub(MARGIN), want.top.saturating_sub(MARGIN));
    PixelRect {
        left,
        top,
        width: (want.right() + MARGIN).min(width) - left,
        height: (want.bottom() + MARGIN).min(height) - top,
    }
}

/// Columns of an iMCU, or `None` where libjpeg-turbo cannot tell and decodes whole pictures only.
fn mcu_columns(subsampling: c_int) -> Option<u32> {
    Some(match subsampling as tj::TJSAMP {
        tj::TJSAMP_TJSAMP_444 | tj::TJSAMP_TJSAMP_GRAY | tj::TJSAMP_TJSAMP_440 | tj::TJSAMP_TJSAMP_441 => 8,
        tj::TJSAMP_TJSAMP_422 | tj::TJSAMP_TJSAMP_420 => 16,
        tj::TJSAMP_TJSAMP_411 => 32,
        _ => return None,
    })
}

/// Four inks to RGB. Encoders store how much light an ink leaves over, with Adobe's marker and without it (the marker's absence says
/// nothing: ITU-T T.81 knows no colours); all that read such files, Pillow, OpenCV and browsers, take them so.
fn inks_to_rgb(cmyk: &[u8], out: &mut Vec<u8>) {
    let need = cmyk.len() / 4 * 3;
    if out.len() < need {
        out.resize(need, 0);
    }
    for (rgb, inks) in out.chunks_exact_mut(3).zip(cmyk.chunks_exact(4)) {
        rgb.copy_from_slice(&ink::rgb([inks[0], inks[1], inks[2], inks[3]]));
    }
}

#[cfg(test)]
#[path = "jpeg_tests.rs"]
mod tests;
