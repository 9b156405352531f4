//! Assigns words to the patches of a picture.

use std::sync::Arc;

use super::cells::{self, Cells};
use super::codebook::Codebook;
use super::exact::cut;
use super::kernel::{self, Kernel};
use super::pixels::PixelMap;
use super::search::{self, search};
use super::table::Table;

/// Instruction set of the fast pass. All give the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with VNNI (x86-64 servers since 2019, Zen 4).
    Avx512Vnni,
    /// AVX2 (x86-64 since 2013).
    Avx2,
    /// NEON (every aarch64).
    Neon,
    /// Plain Rust.
    Portable,
}

impl Isa {
    /// Those that this CPU has, fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vnni") {
                all.push(Self::Avx512Vnni);
            }
            if has!("avx2") && has!("fma") {
                all.push(Self::Avx2);
            }
        }
        if cfg!(target_arch = "aarch64") {
            all.push(Self::Neon);
        }
        all.push(Self::Portable);
        all
    }

    fn levels(self) -> u8 {
        match self {
            Self::Avx512Vnni | Self::Portable => 255,
            Self::Avx2 | Self::Neon => 127,
        }
    }
}

/// Assigns to each patch the word with the largest cosine similarity, lowest index on ties: the f64 argmax ([`super::Exhaustive`]) on every
/// input. How: an 8-bit pass with proven bounds drops nearly all words, f64 decides among the rest (see `search`).
#[derive(Debug)]
pub struct Tokenizer {
    codebook: Arc<Codebook>,
    isa: Isa,
    map: PixelMap,
    plan: Plan,
}

/// How the few words that may win are found.
#[derive(Debug)]
enum Plan {
    /// Words point everywhere (random projections): all of them in bytes.
    Bytes(Table),
    /// Words crowd together (patches, k-means): cells of them.
    Cells(Cells),
}

/// Buffers of one thread; reused from picture to picture.
#[derive(Debug, Default)]
pub struct TokenizerScratch {
    patches: Vec<u8>,
    bytes: search::Scratch,
    cells: cells::Scratch,
}

impl Tokenizer {
    /// Prepares the tables for this CPU's best instruction set.
    #[must_use]
    pub fn new(codebook: Arc<Codebook>) -> Self {
        Self::with_isa(codebook, Isa::available()[0])
    }

    /// Prepares the tables for one instruction set.
    ///
    /// # Panics
    /// If this CPU lacks it ([`Isa::available`]).
    #[must_use]
    pub fn with_isa(codebook: Arc<Codebook>, isa: Isa) -> Self {
        let cells = Cells::suit(&codebook);
        Self::with_plan(codebook, isa, cells)
    }

    /// The same with the plan settled: cells or bytes. For the `words` benchmark.
    ///
    /// # Panics
    /// If this CPU lacks the instructions ([`Isa::available`]).
    #[doc(hidden)]
    #[must_use]
    pub fn with_plan(codebook: Arc<Codebook>, isa: Isa, cells: bool) -> Self {
        assert!(Isa::available().contains(&isa), "this CPU lacks {isa:?}");
        Self {
            isa,
            map: PixelMap::new(codebook.pixels),
            plan: if cells {
                Plan::Cells(Cells::new(&codebook))
            } else {
                Plan::Bytes(Table::new(&codebook, isa.levels()))
            },
            codebook,
        }
    }

    /// The vocabulary.
    #[must_use]
    pub fn codebook(&self) -> &Arc<Codebook> {
        &self.codebook
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Buffers for one thread.
    #[must_use]
    pub fn scratch(&self) -> TokenizerScratch {
        TokenizerScratch::default()
    }

    /// Words of the patches of `half`, a planar 3×side×side picture, row-major over the grid; replaces the content of `out`.
    ///
    /// # Panics
    /// If `half` has not 3×side×side bytes or `side` is not a multiple of the codebook's patch ([`Codebook::check_fits`] tells beforehand).
    pub fn words(&self, scratch: &mut TokenizerScratch, half: &[u8], side: usize, out: &mut Vec<u32>) {
        let (p, d) = (self.codebook.patch as usize, self.codebook.dim());
        assert!(
            half.len() == 3 * side * side && side.is_multiple_of(p),
            "{} bytes are no picture of side {side} in patches of {p}",
            half.len()
        );
        let grid = side / p;
        let mut patches = std::mem::take(&mut scratch.patches);
        patches.resize(grid * grid * d, 0);
        for (i, patch) in patches.chunks_exact_mut(d).enumerate() {
            cut(half, side, p, i / grid, i % grid, patch);
        }
        self.patch_words(scratch, &patches, out);
        scratch.patches = patches;
    }

    /// Words of patches that lie one after the other, each planar 3×p×p; replaces the content of `out`.
    ///
    /// # Panics
    /// If `patches` is not a whole number of patches.
    #[expect(unsafe_code, reason = "`with_isa` has checked that the CPU has these instructions")]
    pub fn patch_words(&self, scratch: &mut TokenizerScratch, patches: &[u8], out: &mut Vec<u32>) {
        let d = self.codebook.dim();
        assert!(patches.len().is_multiple_of(d), "{} bytes are no patches of {d}", patches.len());
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `with_isa` has checked that the CPU has these instructions.
            Isa::Avx512Vnni => unsafe { self.avx512(scratch, patches, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { self.avx2(scratch, patches, out) },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => self.find::<kernel::Neon>(scratch, patches, out),
            _ => self.find::<kernel::Portable>(scratch, patches, out),
        }
    }

    #[inline(always)]
    fn find<K: Kernel>(&self, s: &mut TokenizerScratch, patches: &[u8], out: &mut Vec<u32>) {
        match &self.plan {
            Plan::Bytes(table) => search::<K>(table, &self.map, &self.codebook, &mut s.bytes, patches, out),
            Plan::Cells(cells) => cells.search::<K>(&self.map, &self.codebook, &mut s.cells, patches, out),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn avx512(&self, s: &mut TokenizerScratch, patches: &[u8], out: &mut Vec<u32>) {
        self.find::<kernel::Avx512Vnni>(s, patches, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn avx2(&self, s: &mut TokenizerScratch, patches: &[u8], out: &mut Vec<u32>) {
        self.find::<kernel::Avx2>(s, patches, out);
    }
}
