//! Bits of a scan, eight bytes at a time.

use super::table::LOOK;

/// Bits of unstuffed data from the highest down.
#[derive(Clone, Copy, Default)]
pub(super) struct Bits {
    pub(super) buffer: u64,
    /// Valid ones in `buffer`.
    pub(super) valid: u32,
    /// Next byte of the data.
    pub(super) at: usize,
}

impl Bits {
    /// At least 56 valid bits; zeros behind the end.
    #[inline(always)]
    pub(super) fn refill(&mut self, data: &[u8]) {
        if let Some(bytes) = data.get(self.at..self.at + 8) {
            let mut eight = [0; 8];
            eight.copy_from_slice(bytes);
            self.buffer |= u64::from_be_bytes(eight) >> self.valid;
        }
        self.at += ((63 - self.valid) >> 3) as usize;
        self.valid |= 56;
    }

    #[inline(always)]
    pub(super) fn look(&self) -> usize {
        (self.buffer >> (64 - LOOK)) as usize
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.valid -= bits;
    }

    #[inline(always)]
    pub(super) fn take(&mut self, bits: u32) -> u32 {
        // In two steps, since a shift by 64 is none.
        let value = (self.buffer >> 1) >> (63 - bits);
        self.skip(bits);
        value as u32
    }
}
