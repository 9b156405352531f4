//! Huffman codes as look-ups: what a few bits say of the coefficients behind them (ITU-T T.81 annex F).

/// The scan holds something that this decoder does not judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) struct Odd;

/// Bits of a look-up.
pub(super) const LOOK: u32 = 11;
const TABLE: usize = 1 << LOOK;
/// Entry flag: the code is known, its extra bits do not fit into the look-up.
pub(super) const EXTRA: u32 = 0x80;
/// `advance` of the end of a block in [`Table::one`].
pub(super) const END: u32 = 128;
/// Added to `advance` in [`Table::two`] and [`Table::many`]: the block ends behind the coefficients.
pub(super) const ENDS: u32 = 64;
/// `advance` there where the look-up does not show a whole coefficient.
pub(super) const NOTHING: u32 = 127;

/// A Huffman table as a JPEG stores it: number of codes by length (index 0 unused), and their symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Code {
    pub(in super::super) lengths: [u8; 17],
    pub(in super::super) symbols: [u8; 256],
}

/// Look-ups of one Huffman code.
pub(super) struct Table {
    pub(super) code: Code,
    pub(super) ac: bool,
    /// `value << 16 | advance << 8 | bits`. Bits 0: the code is longer than the look-up. With [`EXTRA`]: `value` is a number of bits to
    /// read behind the code of `bits & 0x7f`. `advance` is run + 1.
    pub(super) one: Box<[u32; TABLE]>,
    /// `second value << 24 | first value << 16 | advance of the first << 11 | advance << 4 | bits` of one or two small coefficients, of
    /// which the second may be the end of the block. (A value that is not there has an `advance` of 0.)
    pub(super) two: Box<[u32; TABLE]>,
    /// `advance << 4 | bits` of as many whole coefficients as the look-up shows.
    pub(super) many: Box<[u16; TABLE]>,
    /// Behind the last code of each length, left-aligned in 16 bits.
    pub(super) limit: [u32; 17],
    /// What to add to a code of each length for its place in `symbols`.
    pub(super) offset: [i32; 17],
}

impl Table {
    pub(super) fn new(code: &Code, ac: bool) -> Result<Self, Odd> {
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

    pub(super) fn fill(&mut self) -> Result<(), Odd> {
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
    pub(super) fn meaning(&self, symbol: u8) -> Result<(u32, u32), Odd> {
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
#[inline]
pub(super) fn extend(bits: u32, size: u32) -> i32 {
    if size == 0 {
        return 0;
    }
    let half = 1 << (size - 1);
    if bits < half { bits as i32 - (1 << size) + 1 } else { bits as i32 }
}
