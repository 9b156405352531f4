//! Bits of a sequential Huffman scan to quantised coefficients (ITU-T T.81 annex F), fast, and with nothing to trust in the input.
//!
//! Three things make it fast. Stuffed bytes are taken out before bits are read, so a refill is one load. One table look-up gives runs,
//! values and length of up to two whole coefficients where they fit into [`LOOK`] bits, and one branch tells whether they are to be
//! had. And blocks outside the wanted region are only stepped over, since of them nothing but the DC difference matters.
//!
//! It handles what is in order and nothing else: at anything odd it gives up with [`Odd`], and libjpeg-turbo decides.

/// Bits of a look-up.
const LOOK: u32 = 11;
/// Look-ups between refills: their bits are there, and those of one symbol more (31) after a refill.
const LOOKS: u32 = 5;
const TABLE: usize = 1 << LOOK;
/// Unstuffed bytes made at a time.
const CHUNK: usize = 16 << 10;
/// More than an MCU can take: 64 symbols in a block, each at most a 16-bit code and 15 more bits.
const LONGEST_MCU: usize = BLOCKS * 64 * 4 + 8;
/// Zeros behind the data, so that its last bytes can be loaded eight at a time.
const PADDING: usize = 8;
/// Entry flag: the code is known, its extra bits do not fit into the look-up.
const EXTRA: u32 = 0x80;
/// `advance` of the end of a block in [`Table::one`].
const END: u32 = 128;
/// Added to `advance` in [`Table::two`] and [`Table::many`]: the block ends behind the coefficients.
const ENDS: u32 = 64;
/// `advance` there where the look-up does not show a whole coefficient.
const NOTHING: u32 = 127;

/// Position in a block of the k-th coefficient in zigzag order (T.81 figure A.6).
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The scan holds something that this decoder does not judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Odd;

/// Coefficients of one block in natural order.
pub(super) type Block = [i16; 64];

/// A Huffman table as a JPEG stores it: number of codes by length (index 0 unused), and their symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) lengths: [u8; 17],
    pub(super) symbols: [u8; 256],
}

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

/// Look-ups of one Huffman code.
struct Table {
    code: Code,
    ac: bool,
    /// `value << 16 | advance << 8 | bits`. Bits 0: the code is longer than the look-up. With [`EXTRA`]: `value` is a number of bits to
    /// read behind the code of `bits & 0x7f`. `advance` is run + 1.
    one: Box<[u32; TABLE]>,
    /// `second value << 24 | first value << 16 | advance of the first << 11 | advance << 4 | bits` of one or two small coefficients, of
    /// which the second may be the end of the block. (A value that is not there has an `advance` of 0.)
    two: Box<[u32; TABLE]>,
    /// `advance << 4 | bits` of as many whole coefficients as the look-up shows.
    many: Box<[u16; TABLE]>,
    /// Behind the last code of each length, left-aligned in 16 bits.
    limit: [u32; 17],
    /// What to add to a code of each length for its place in `symbols`.
    offset: [i32; 17],
}

impl Table {
    fn new(code: &Code, ac: bool) -> Result<Self, Odd> {
        let mut table = Self {
            code: *code,
            ac,
            one: Box::new([0; TABLE]),
            two: Box::new([0; TABLE]),
            many: Box::new([0; TABLE]),
            limit: [0; 17],
            offset: [0; 17],
        };
        table.fill()?;
        Ok(table)
    }

    fn fill(&mut self) -> Result<(), Odd> {
        self.one.fill(0);
        let (mut next, mut place) = (0u32, 0usize);
        for length in 1..=16u32 {
            self.offset[length as usize] = place as i32 - next as i32;
            for _ in 0..self.code.lengths[length as usize] {
                let symbol = *self.code.symbols.get(place).ok_or(Odd)?;
                if next >= 1 << length {
                    return Err(Odd);
                }
                if length <= LOOK {
                    self.enter(next, length, symbol)?;
                }
                (next, place) = (next + 1, place + 1);
            }
            self.limit[length as usize] = next << (16 - length);
            next <<= 1;
        }
        if self.ac {
            for look in 0..TABLE {
                self.two[look] = self.pair(look);
                self.many[look] = self.several(look);
            }
        }
        Ok(())
    }

    /// All look-ups that begin with a code.
    fn enter(&mut self, code: u32, length: u32, symbol: u8) -> Result<(), Odd> {
        let (advance, size) = self.meaning(symbol)?;
        let (start, rest) = ((code << (LOOK - length)) as usize, LOOK - length);
        for bits in 0..1u32 << rest {
            self.one[start + bits as usize] = if size <= rest {
                let value = extend(bits >> (rest - size), size);
                u32::from(value as u16) << 16 | advance << 8 | (length + size)
            } else {
                size << 16 | advance << 8 | EXTRA | length
            };
        }
        Ok(())
    }

    /// `advance` and number of extra bits of a symbol.
    fn meaning(&self, symbol: u8) -> Result<(u32, u32), Odd> {
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        match (self.ac, symbol) {
            (true, 0) => Ok((END, 0)),
            // A run without a value that is not 16 zeros belongs to progressive scans.
            (true, _) if size == 0 && run != 15 => Err(Odd),
            (true, _) => Ok((run + 1, size)),
            (false, 0..=15) => Ok((0, u32::from(symbol))),
            (false, _) => Err(Odd),
        }
    }

    /// The coefficient behind the first `bits` of a look-up, if it shows all of it: `advance`, value, bits.
    fn shown(&self, look: usize, bits: u32) -> Option<(u32, i32, u32)> {
        let entry = self.one[(look << bits) & (TABLE - 1)];
        let took = entry & 0xff;
        let whole = took != 0 && took & EXTRA == 0 && bits + took <= LOOK;
        whole.then_some(((entry >> 8) & 0xff, entry as i32 >> 16, took))
    }

    fn pair(&self, look: usize) -> u32 {
        let small = |value: i32| i8::try_from(value).is_ok();
        let entry = |values: [i32; 2], first: u32, both: u32, bits: u32| {
            u32::from(values[1] as u8) << 24 | u32::from(values[0] as u8) << 16 | first << 11 | both << 4 | bits
        };
        match self.shown(look, 0) {
            Some((END, _, bits)) => entry([0, 0], 0, ENDS, bits),
            Some((first, value, bits)) if small(value) => match self.shown(look, bits) {
                Some((END, _, more)) => entry([value, 0], first, first + ENDS, bits + more),
                Some((second, other, more)) if small(other) => entry([value, other], first, first + second, bits + more),
                _ => entry([value, 0], first, first, bits),
            },
            _ => entry([0, 0], 0, NOTHING, 0),
        }
    }

    fn several(&self, look: usize) -> u16 {
        let (mut advance, mut bits) = (0, 0);
        while let Some((step, _, took)) = self.shown(look, bits) {
            if step == END {
                (advance, bits) = (advance + ENDS, bits + took);
                break;
            }
            if advance + step >= NOTHING - ENDS {
                break;
            }
            (advance, bits) = (advance + step, bits + took);
        }
        let advance = if bits == 0 { NOTHING } else { advance };
        (advance << 4 | bits) as u16
    }
}

/// The value of `size` bits (T.81 F.2.2.1).
fn extend(bits: u32, size: u32) -> i32 {
    if size == 0 {
        return 0;
    }
    let half = 1 << (size - 1);
    if bits < half { bits as i32 - (1 << size) + 1 } else { bits as i32 }
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

/// Bits of unstuffed data from the highest down.
#[derive(Clone, Copy, Default)]
struct Bits {
    buffer: u64,
    /// Valid ones in `buffer`.
    valid: u32,
    /// Next byte of the data.
    at: usize,
}

impl Bits {
    /// At least 56 valid bits; zeros behind the end.
    #[inline(always)]
    fn refill(&mut self, data: &[u8]) {
        if let Some(bytes) = data.get(self.at..self.at + 8) {
            let mut eight = [0; 8];
            eight.copy_from_slice(bytes);
            self.buffer |= u64::from_be_bytes(eight) >> self.valid;
        }
        self.at += ((63 - self.valid) >> 3) as usize;
        self.valid |= 56;
    }

    #[inline(always)]
    fn look(&self) -> usize {
        (self.buffer >> (64 - LOOK)) as usize
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.valid -= bits;
    }

    #[inline(always)]
    fn take(&mut self, bits: u32) -> u32 {
        // In two steps, since a shift by 64 is none.
        let value = (self.buffer >> 1) >> (63 - bits);
        self.skip(bits);
        value as u32
    }
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
