//! Bits of a sequential Huffman scan to quantised coefficients (ITU-T T.81 annex F), fast, and with nothing to trust in the input.
//!
//! Three things make it fast. Stuffed bytes are taken out before bits are read, so a refill is one load. One table look-up gives runs,
//! values and length of up to two whole coefficients where they fit into [`LOOK`] bits, and one branch tells whether they are to be
//! had. And blocks outside the wanted region are only stepped over, since of them nothing but the DC difference matters.
//!
//! It handles what is in order and nothing else: at anything odd it gives up with [`Odd`], and libjpeg-turbo decides.

mod bits;
mod table;

use bits::Bits;
pub(super) use table::{Code, Odd};
use table::{END, ENDS, EXTRA, NOTHING, Table, extend};

/// Look-ups between refills: their bits are there, and those of one symbol more (31) after a refill.
const LOOKS: u32 = 5;
/// Unstuffed bytes made at a time.
const CHUNK: usize = 16 << 10;
/// More than an MCU can take: 64 symbols in a block, each at most a 16-bit code and 15 more bits.
const LONGEST_MCU: usize = BLOCKS * 64 * 4 + 8;
/// Zeros behind the data, so that its last bytes can be loaded eight at a time.
const PADDING: usize = 8;
/// Position in a block of the k-th coefficient in zigzag order (T.81 figure A.6).
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Coefficients of one block in natural order.
pub(super) type Block = [i16; 64];

/// Components of a picture at most; four are ink, which this decoder leaves to libjpeg-turbo.
pub(super) const COMPONENTS: usize = 3;
/// Blocks of an MCU at most (T.81 B.2.3).
pub(super) const BLOCKS: usize = 10;

/// What a scan is made of.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// MCUs in a row.
    pub(super) columns: u32,
    /// First and last column whose coefficients are wanted.
    pub(super) wanted: (u32, u32),
    /// MCUs between restart markers; 0 = none.
    pub(super) restart_interval: u32,
    /// Blocks of an MCU.
    pub(super) blocks: usize,
    /// Component of each of them.
    pub(super) component_of: [u8; BLOCKS],
    /// DC and AC code of each component.
    pub(super) codes: [Option<(Code, Code)>; COMPONENTS],
}

/// Look-ups and unstuffed bytes, kept from picture to picture.
#[derive(Default)]
pub(super) struct Memory {
    /// Most pictures use the tables of the one before them.
    tables: Vec<Table>,
    data: Vec<u8>,
}

impl Memory {
    /// Place of a code's look-ups. Those before `used` serve the picture at hand; the others may be overwritten.
    fn table(&mut self, code: &Code, ac: bool, used: &mut usize) -> Result<usize, Odd> {
        let found = self.tables.iter().position(|t| t.ac == ac && t.code == *code);
        match found {
            Some(n) if n < *used => return Ok(n),
            Some(n) => self.tables.swap(n, *used),
            None if self.tables.len() < 4 * COMPONENTS => {
                self.tables.push(Table::new(code, ac)?);
                let last = self.tables.len() - 1;
                self.tables.swap(*used, last);
            }
            None => {
                let table = &mut self.tables[*used];
                (table.code, table.ac) = (*code, ac);
                if table.fill().is_err() {
                    self.tables.clear();
                    return Err(Odd);
                }
            }
        }
        *used += 1;
        Ok(*used - 1)
    }
}

/// A scan being read.
pub(super) struct Scan<'a> {
    raw: &'a [u8],
    layout: Layout,
    memory: &'a mut Memory,
    /// Place in `memory.tables` of each component's DC and AC table.
    table_of: [(usize, usize); COMPONENTS],
    /// DC value of each component's last block.
    before: [i32; COMPONENTS],
    bits: Bits,
    /// `raw` was unstuffed up to a marker or its end.
    complete: bool,
    marker: Option<u8>,
    column: u32,
    until_restart: u32,
    restarts: u8,
}

/// The symbol behind a look-up that was not enough: `advance` and value. Takes at most 31 bits.
#[cold]
fn long(table: &Table, bits: &mut Bits) -> Result<(u32, i32), Odd> {
    let ahead = (bits.buffer >> 48) as u32;
    let length = (1..=16).find(|l| ahead < table.limit[*l]).ok_or(Odd)?;
    let place = table.offset[length] + (ahead >> (16 - length)) as i32;
    let symbol = *table.code.symbols.get(place as usize).ok_or(Odd)?;
    let (advance, size) = table.meaning(symbol)?;
    bits.skip(length as u32);
    Ok((advance, extend(bits.take(size), size)))
}

/// One coefficient: `advance` and value. Needs 31 valid bits.
#[inline(always)]
fn coefficient(table: &Table, bits: &mut Bits) -> Result<(u32, i32), Odd> {
    let entry = table.one[bits.look()];
    let advance = (entry >> 8) & 0xff;
    let length = entry & 0xff;
    if length.wrapping_sub(1) < EXTRA - 1 {
        bits.skip(length);
        return Ok((advance, (entry as i32) >> 16));
    }
    if length == 0 {
        return long(table, bits);
    }
    bits.skip(length & 0x7f);
    let size = entry >> 16;
    Ok((advance, extend(bits.take(size), size)))
}

/// AC coefficients of a wanted block, which holds zeros.
#[inline(always)]
fn read_block(table: &Table, bits: &mut Bits, data: &[u8], block: &mut Block) -> Result<(), Odd> {
    let mut k = 1;
    'refill: loop {
        bits.refill(data);
        for _ in 0..LOOKS {
            let entry = table.two[bits.look()];
            let first = (entry >> 11) & 31;
            let advance = (entry >> 4) & 127;
            if k + advance >= 64 {
                let ends = (ENDS..NOTHING).contains(&advance);
                if ends && k + first < 64 {
                    bits.skip(entry & 15);
                    if first > 0 {
                        put(block, k + first, (entry >> 16) as i8);
                    }
                    return Ok(());
                }
                // A symbol that is long, or the block's last one: with it, the look-up may reach into the next block.
                bits.refill(data);
                let (advance, value) = coefficient(table, bits)?;
                k += advance;
                if k <= 64 {
                    block[usize::from(ZIGZAG[(k - 1) as usize & 63]) & 63] = value as i16;
                }
                if k >= 64 {
                    // Behind the last coefficient stands no end of block; a run beyond it is damage.
                    return if k == 64 || k > END { Ok(()) } else { Err(Odd) };
                }
                continue 'refill;
            }
            bits.skip(entry & 15);
            // Where there is no second one, the first goes over it.
            put(block, k + advance, (entry >> 24) as i8);
            put(block, k + first, (entry >> 16) as i8);
            k += advance;
        }
    }
}

/// Coefficient number `k` − 1 in zigzag order.
#[inline(always)]
fn put(block: &mut Block, k: u32, value: i8) {
    block[usize::from(ZIGZAG[k.wrapping_sub(1) as usize & 63]) & 63] = i16::from(value);
}

/// Steps over the AC coefficients of a block.
#[inline(always)]
fn skip_block(table: &Table, bits: &mut Bits, data: &[u8]) -> Result<(), Odd> {
    let mut k = 1;
    'refill: loop {
        bits.refill(data);
        for _ in 0..LOOKS {
            let entry = u32::from(table.many[bits.look()]);
            let advance = entry >> 4;
            if k + advance >= 64 {
                if (ENDS..NOTHING).contains(&advance) && k + advance - ENDS < 64 {
                    bits.skip(entry & 15);
                    return Ok(());
                }
                bits.refill(data);
                k += coefficient(table, bits)?.0;
                if k >= 64 {
                    return if k == 64 || k > END { Ok(()) } else { Err(Odd) };
                }
                continue 'refill;
            }
            bits.skip(entry & 15);
            k += advance;
        }
    }
}

impl<'a> Scan<'a> {
    /// Prepares to read a scan whose entropy-coded data begins with `raw`.
    ///
    /// # Errors
    /// [`Odd`] for Huffman codes or a layout that cannot be.
    pub(super) fn new(raw: &'a [u8], layout: Layout, memory: &'a mut Memory) -> Result<Self, Odd> {
        let known = |c: &u8| layout.codes.get(usize::from(*c)).is_some_and(Option::is_some);
        if layout.blocks > BLOCKS || !layout.component_of[..layout.blocks.min(BLOCKS)].iter().all(known) {
            return Err(Odd);
        }
        let (mut table_of, mut used) = ([(0, 0); COMPONENTS], 0);
        for (places, (dc, ac)) in table_of.iter_mut().zip(layout.codes.iter().flatten()) {
            *places = (memory.table(dc, false, &mut used)?, memory.table(ac, true, &mut used)?);
        }
        memory.data.clear();
        Ok(Self {
            raw,
            before: [0; COMPONENTS],
            until_restart: layout.restart_interval,
            layout,
            memory,
            table_of,
            bits: Bits::default(),
            complete: false,
            marker: None,
            column: 0,
            restarts: 0,
        })
    }

    /// Whether the coefficients of the next MCU are wanted, if those of its row are.
    pub(super) fn next_is_wanted(&self) -> bool {
        (self.layout.wanted.0..=self.layout.wanted.1).contains(&self.column)
    }

    /// Number of blocks in an MCU.
    pub(super) fn blocks(&self) -> usize {
        self.layout.blocks
    }

    /// Reads the next MCU into blocks of zeros, or steps over it.
    ///
    /// # Errors
    /// [`Odd`]; nothing can be read after it.
    pub(super) fn mcu<'b>(&mut self, mut wanted: Option<impl Iterator<Item = &'b mut Block>>) -> Result<(), Odd> {
        if self.layout.restart_interval > 0 {
            if self.until_restart == 0 {
                self.restart()?;
            }
            self.until_restart -= 1;
        }
        if !self.complete && self.bits.at + LONGEST_MCU > self.memory.data.len() {
            self.unstuff();
        }
        let (data, tables) = (self.memory.data.as_slice(), self.memory.tables.as_slice());
        let mut bits = self.bits;
        for component in &self.layout.component_of[..self.layout.blocks] {
            let component = usize::from(*component);
            let (dc, ac) = self.table_of[component];
            let (dc, ac) = (&tables[dc], &tables[ac]);
            bits.refill(data);
            let (_, difference) = coefficient(dc, &mut bits)?;
            let value = self.before[component].wrapping_add(difference);
            self.before[component] = value;
            match wanted.as_mut().map(Iterator::next) {
                None => skip_block(ac, &mut bits, data)?,
                Some(None) => return Err(Odd),
                Some(Some(block)) => {
                    block[0] = value as i16;
                    read_block(ac, &mut bits, data, block)?;
                }
            }
        }
        self.bits = bits;
        self.column = if self.column + 1 == self.layout.columns {
            0
        } else {
            self.column + 1
        };
        // Bits that were not there read as zeros.
        if self.complete && self.left() < 0 { Err(Odd) } else { Ok(()) }
    }

    /// Whether the data ends here, and with the end-of-image marker.
    pub(super) fn is_at_end(&mut self) -> bool {
        if !self.complete {
            self.unstuff();
        }
        self.complete && self.marker == Some(0xd9) && (0..8).contains(&self.left())
    }

    /// Bits of the data that were not read.
    fn left(&self) -> i64 {
        let end = self.memory.data.len() - if self.complete { PADDING } else { 0 };
        8 * (end as i64 - self.bits.at as i64) + i64::from(self.bits.valid)
    }

    /// Moves on to the next piece of the data: takes out the zero behind each FF, up to a marker.
    fn unstuff(&mut self) {
        let data = &mut self.memory.data;
        let read = self.bits.at.min(data.len());
        data.drain(..read);
        self.bits.at = 0;
        let mut raw = self.raw;
        while data.len() < CHUNK {
            let piece = &raw[..raw.len().min(CHUNK)];
            let Some(plain) = memchr::memchr(0xff, piece) else {
                data.extend_from_slice(piece);
                raw = &raw[piece.len()..];
                if raw.is_empty() {
                    self.complete = true;
                    break;
                }
                continue;
            };
            data.extend_from_slice(&raw[..plain]);
            match raw.get(plain + 1) {
                Some(0) => {
                    data.push(0xff);
                    raw = &raw[plain + 2..];
                }
                marker => {
                    self.marker = marker.copied();
                    self.complete = true;
                    raw = raw.get(plain + 2..).unwrap_or_default();
                    break;
                }
            }
        }
        self.raw = raw;
        if self.complete {
            self.memory.data.extend_from_slice(&[0; PADDING]);
        }
    }

    fn restart(&mut self) -> Result<(), Odd> {
        if !self.complete {
            self.unstuff();
        }
        // A byte is filled up with ones before a marker; more than that was lost or added.
        let expected = 0xd0 + (self.restarts & 7);
        if !self.complete || self.marker != Some(expected) || !(0..8).contains(&self.left()) {
            return Err(Odd);
        }
        self.memory.data.clear();
        (self.bits, self.marker, self.complete) = (Bits::default(), None, false);
        self.before.fill(0);
        self.restarts = self.restarts.wrapping_add(1);
        self.until_restart = self.layout.restart_interval;
        Ok(())
    }
}
