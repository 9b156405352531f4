//! The common JPEG (one sequential Huffman scan, grey or colour) at the limit of the machine: our entropy decoder inside libjpeg-turbo.

use std::alloc::{Layout as Memory, handle_alloc_error};
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::slice;

use super::entropy::{self, BLOCKS, Block, COMPONENTS, Code, Layout, Scan};
use super::jpeg_header::JpegHeader;
use super::region::{PixelRect, Placed};

/// Mirrors `struct region` in native/jpeg_region.c.
#[repr(C)]
#[derive(Clone, Copy)]
struct Region {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

/// Mirrors `struct scan` in native/jpeg_region.c.
#[repr(C)]
struct RawScan {
    data: *const u8,
    length: usize,
    image_width: u32,
    image_height: u32,
    columns: u32,
    first_column: u32,
    last_column: u32,
    restart_interval: u32,
    blocks: u32,
    components: u32,
    component_of: [u8; BLOCKS],
    dc_lengths: [*const u8; 4],
    dc_symbols: [*const u8; 4],
    ac_lengths: [*const u8; 4],
    ac_symbols: [*const u8; 4],
}

#[expect(unsafe_code, reason = "libjpeg-turbo's classic interface, in native/jpeg_region.c")]
unsafe extern "C" {
    fn splitmask_jpeg_open() -> *mut c_void;
    fn splitmask_jpeg_close(decoder: *mut c_void);
    fn splitmask_jpeg_begin(
        decoder: *mut c_void,
        bytes: *const u8,
        length: usize,
        denominator: u32,
        region: *mut Region,
        scan: *mut RawScan,
    ) -> c_int;
    fn splitmask_jpeg_rows(
        decoder: *mut c_void,
        region: *const Region,
        out: *mut u8,
        mcu: extern "C" fn(*mut c_void, *const *mut Block) -> c_int,
        entropy: *mut c_void,
    ) -> c_int;
}

/// A libjpeg-turbo decompressor with our entropy decoder.
pub(super) struct Baseline {
    decoder: NonNull<c_void>,
    memory: entropy::Memory,
}

#[expect(
    unsafe_code,
    reason = "the decompressor is used by one owner at a time and keeps no thread-bound state"
)]
// SAFETY: libjpeg-turbo keeps everything in its struct; calls do not overlap, since all take `&mut self`.
unsafe impl Send for Baseline {}

impl Drop for Baseline {
    #[expect(unsafe_code, reason = "foreign destructor")]
    fn drop(&mut self) {
        // SAFETY: made by `splitmask_jpeg_open`, closed once.
        unsafe { splitmask_jpeg_close(self.decoder.as_ptr()) }
    }
}

impl Baseline {
    #[expect(unsafe_code, reason = "foreign constructor")]
    pub(super) fn new() -> Self {
        // SAFETY: no arguments; NULL means out of memory.
        let decoder = unsafe { splitmask_jpeg_open() };
        let decoder = NonNull::new(decoder).unwrap_or_else(|| handle_alloc_error(Memory::new::<[u8; 4096]>()));
        Self {
            decoder,
            memory: entropy::Memory::default(),
        }
    }

    /// Decodes at least `want` (pixels of the picture scaled by 1/`denom`) as RGB, and nothing below it. `None`: the file is not of the
    /// common kind or not in order, and somebody else must say what it is.
    #[expect(unsafe_code, reason = "foreign calls")]
    pub(super) fn decode(&mut self, bytes: &[u8], header: &JpegHeader, want: PixelRect, denom: u32, out: &mut Vec<u8>) -> Option<Placed> {
        let mut region = Region {
            left: want.left,
            top: want.top,
            width: want.width,
            height: want.height,
        };
        // SAFETY: integers and pointers, for which zero is a value.
        let mut raw: RawScan = unsafe { std::mem::zeroed() };
        // SAFETY: the decoder is valid, and `bytes` outlives both calls.
        let begun = unsafe {
            splitmask_jpeg_begin(
                self.decoder.as_ptr(),
                bytes.as_ptr(),
                bytes.len(),
                denom,
                &raw mut region,
                &raw mut raw,
            )
        };
        if begun != 0 || (raw.image_width, raw.image_height) != (header.width, header.height) {
            return None;
        }
        // SAFETY: `begin` has just filled it in.
        let (data, layout) = unsafe { read_layout(&raw) };
        let mut scan = Scan::new(data, layout, &mut self.memory).ok()?;
        let size = 3 * region.width as usize * region.height as usize;
        if out.len() < size {
            out.resize(size, 0);
        }
        // SAFETY: `out` holds the region's rows without gaps; `scan` lives through the call and is reached through this pointer only.
        let done = unsafe {
            splitmask_jpeg_rows(
                self.decoder.as_ptr(),
                &raw const region,
                out.as_mut_ptr(),
                mcu,
                ptr::from_mut(&mut scan).cast(),
            )
        };
        // Behind the last row libjpeg-turbo looks at what follows, and so do we.
        let to_the_end = region.top + region.height == header.height.div_ceil(denom);
        (done == 0 && (!to_the_end || scan.is_at_end())).then_some(Placed {
            left: region.left,
            top: region.top,
            width: region.width,
            height: region.height,
        })
    }
}

/// # Safety
/// `raw` must come from a `splitmask_jpeg_begin` that succeeded, whose bytes live for `'a`.
#[expect(unsafe_code, reason = "foreign pointers")]
unsafe fn read_layout<'a>(raw: &RawScan) -> (&'a [u8], Layout) {
    let code = |lengths: *const u8, symbols: *const u8| {
        let mut code = Code {
            lengths: [0; 17],
            symbols: [0; 256],
        };
        // SAFETY: libjpeg's tables hold 17 and 256 bytes.
        unsafe {
            code.lengths.copy_from_slice(slice::from_raw_parts(lengths, 17));
            code.symbols.copy_from_slice(slice::from_raw_parts(symbols, 256));
        }
        code
    };
    let mut codes = [None; COMPONENTS];
    for (c, codes) in codes.iter_mut().enumerate().take(raw.components as usize) {
        *codes = Some((
            code(raw.dc_lengths[c], raw.dc_symbols[c]),
            code(raw.ac_lengths[c], raw.ac_symbols[c]),
        ));
    }
    let layout = Layout {
        columns: raw.columns,
        wanted: (raw.first_column, raw.last_column),
        restart_interval: raw.restart_interval,
        blocks: raw.blocks as usize,
        component_of: raw.component_of,
        codes,
    };
    // SAFETY: what is left of the caller's bytes behind the header.
    (unsafe { slice::from_raw_parts(raw.data, raw.length) }, layout)
}

/// libjpeg-turbo's `decode_mcu`: blocks to fill, or NULL where it passes over rows. Nonzero: give up.
#[expect(unsafe_code, reason = "called back by native/jpeg_region.c")]
extern "C" fn mcu(scan: *mut c_void, blocks: *const *mut Block) -> c_int {
    // SAFETY: `Baseline::decode` passes its scan, which nothing else reaches meanwhile.
    let scan = unsafe { &mut *scan.cast::<Scan<'_>>() };
    let wanted = !blocks.is_null() && scan.next_is_wanted();
    // SAFETY: libjpeg-turbo has one block of 64 numbers for each block of an MCU, all apart.
    let each = wanted.then(|| (0..scan.blocks()).map(|b| unsafe { &mut **blocks.add(b) }));
    c_int::from(scan.mcu(each).is_err())
}
