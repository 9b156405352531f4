//! The first directory of a TIFF structure (TIFF 6.0 section 2, BigTIFF): that of a TIFF file, or of the EXIF block in other files.

/// Kinds of values, by their numbers in the file.
const BYTE: u16 = 1;
const SHORT: u16 = 3;
const LONG: u16 = 4;
const RATIONAL: u16 = 5;
const SBYTE: u16 = 6;
const SSHORT: u16 = 8;
const SLONG: u16 = 9;
const SRATIONAL: u16 = 10;
const FLOAT: u16 = 11;
const DOUBLE: u16 = 12;
const IFD: u16 = 13;
const LONG8: u16 = 16;
const SLONG8: u16 = 17;

/// Bytes of one value.
fn size(kind: u16) -> usize {
    match kind {
        SHORT | SSHORT => 2,
        LONG | SLONG | FLOAT | IFD => 4,
        RATIONAL | SRATIONAL | DOUBLE | LONG8 | SLONG8 | 18 => 8,
        _ => 1,
    }
}

/// A directory within its block of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory<'a> {
    block: &'a [u8],
    pub(super) big_endian: bool,
    /// Offsets and counts have 64 bits.
    big: bool,
    /// Where the first entry begins, and how many there are.
    entries: (usize, usize),
}

/// A tag's values, not yet read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    kind: u16,
    pub(super) count: usize,
    /// Where the values begin in the block.
    pub(super) at: usize,
}

impl Entry {
    /// Bytes of one of its values.
    pub(super) fn size(self) -> usize {
        size(self.kind)
    }

    /// Whether its values are unsigned whole numbers.
    pub(super) fn is_unsigned(self) -> bool {
        matches!(self.kind, BYTE | SHORT | LONG | IFD | LONG8 | 18)
    }
}

impl<'a> Directory<'a> {
    /// The first directory of a block that begins with a TIFF header; `None` where there is none in it.
    pub(super) fn first(block: &'a [u8]) -> Option<Self> {
        let (big_endian, big) = match block.get(..4)? {
            b"II*\0" => (false, false),
            b"MM\0*" => (true, false),
            b"II+\0" => (false, true),
            b"MM\0+" => (true, true),
            _ => return None,
        };
        let mut found = Self {
            block,
            big_endian,
            big,
            entries: (0, 0),
        };
        let at = usize::try_from(if big { found.unsigned(8, 8) } else { found.unsigned(4, 4) }?).ok()?;
        let width = if big { 8 } else { 2 };
        let count = found.unsigned(at, width)?;
        found.entries = (at + width, usize::try_from(count).ok()?);
        Some(found)
    }

    /// The same, of classic TIFF only: what EXIF blocks are made of.
    pub(super) fn first_classic(block: &'a [u8]) -> Option<Self> {
        Self::first(block).filter(|d| !d.big)
    }

    /// A number of `width` bytes at `at`.
    fn unsigned(&self, at: usize, width: usize) -> Option<u64> {
        let bytes = self.block.get(at..at.checked_add(width)?)?;
        let step = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.big_endian {
            bytes.iter().fold(0, step)
        } else {
            bytes.iter().rev().fold(0, step)
        })
    }

    /// Whether all entries lie in the block.
    pub(super) fn is_whole(&self) -> bool {
        let (first, count) = self.entries;
        let end = count.checked_mul(if self.big { 20 } else { 12 }).and_then(|n| n.checked_add(first));
        end.is_some_and(|end| end <= self.block.len())
    }

    /// The first entry of this tag whose values lie in the block.
    pub(super) fn entry(&self, tag: u16) -> Option<Entry> {
        let (first, count) = self.entries;
        let (length, width) = if self.big { (20, 8) } else { (12, 4) };
        for n in 0..count {
            let at = first.checked_add(n.checked_mul(length)?)?;
            let number = self.unsigned(at, 2)?;
            self.block.get(at..at + length)?;
            if number != u64::from(tag) {
                continue;
            }
            let kind = self.unsigned(at + 2, 2)? as u16;
            let count = usize::try_from(self.unsigned(at + 4, width)?).ok()?;
            let bytes = count.checked_mul(size(kind))?;
            let inside = at + 4 + width;
            let at = if bytes <= width {
                inside
            } else {
                usize::try_from(self.unsigned(inside, width)?).ok()?
            };
            self.block.get(at..at.checked_add(bytes)?)?;
            return Some(Entry { kind, count, at });
        }
        None
    }

    /// The `n`-th value of an entry as a number; `None` for text and for bytes without a meaning.
    fn value(&self, entry: Entry, n: usize) -> Option<f64> {
        if n >= entry.count {
            return None;
        }
        let width = entry.size();
        let at = entry.at + n * width;
        let bits = self.unsigned(at, width)?;
        let half = |at: usize| self.unsigned(at, 4);
        Some(match entry.kind {
            BYTE | SHORT | LONG | IFD | LONG8 | 18 => bits as f64,
            SBYTE => f64::from(bits as u8 as i8),
            SSHORT => f64::from(bits as u16 as i16),
            SLONG => f64::from(bits as u32 as i32),
            SLONG8 => bits as i64 as f64,
            RATIONAL => half(at)? as f64 / half(at + 4)? as f64,
            SRATIONAL => f64::from(half(at)? as u32 as i32) / f64::from(half(at + 4)? as u32 as i32),
            FLOAT => f64::from(f32::from_bits(bits as u32)),
            DOUBLE => f64::from_bits(bits),
            _ => return None,
        })
    }

    /// The first value of a tag, whatever kind of number it is.
    pub(super) fn number(&self, tag: u16) -> Option<f64> {
        self.value(self.entry(tag)?, 0)
    }

    /// All values of a tag that are unsigned whole numbers; empty without such a tag.
    pub(super) fn numbers(&self, tag: u16) -> impl Iterator<Item = u64> + '_ {
        let entry = self.entry(tag).filter(|e| e.is_unsigned());
        let count = entry.map_or(0, |e| e.count);
        (0..count).filter_map(move |n| {
            let e = entry?;
            self.unsigned(e.at + n * e.size(), e.size())
        })
    }

    /// The bytes of a tag's values.
    pub(super) fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        let entry = self.entry(tag)?;
        self.block.get(entry.at..entry.at + entry.count * entry.size())
    }

    /// Whether a tag's values are bytes or text without a number's meaning.
    pub(super) fn is_opaque(&self, tag: u16) -> bool {
        self.entry(tag).is_some_and(|e| matches!(e.kind, BYTE | 2 | 7))
    }
}
