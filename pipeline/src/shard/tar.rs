//! Entries of a tar stream, strictly read: what does not add up is an error, never guessed around.
//!
//! Headers are the `tar` crate's; the walk over them is ours, because its iterator reads extension headers of any size into memory
//! and takes a stream that ends early for a whole one. The size in a PAX header wins over the one in the header behind it, so no bytes
//! inside a member are ever taken for a member (CVE-2025-62518). Nothing is written to disk: names are keys only.

use std::io::{self, Read};

use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Largest PAX or GNU long-name header, bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// Why a tar stream cannot be read on.
#[derive(Debug)]
pub enum TarError {
    /// It ends inside a member or a header.
    Truncated,
    /// It is not a tar, or one that could be read in two ways.
    Malformed(String),
    /// The bytes are those of a compression format, named here.
    Compressed(&'static str),
    /// The bytes could not be had.
    Io(io::Error),
}

/// What a tar says an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file with content.
    Regular,
    /// A folder.
    Directory,
    /// Another name for the content of an earlier entry.
    HardLink,
    /// A path to follow.
    SymbolicLink,
    /// A device or a pipe.
    Special,
    /// A type that POSIX leaves to its writers, such as GNU's volume labels.
    Other,
}

/// One entry of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path as written, in whatever encoding.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of its content; 0 of links, folders and devices.
    pub size: u64,
}

/// How a tar ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With its end marker; other bytes may follow.
    Marked,
    /// With its bytes, behind a whole entry. Some writers leave the marker out, and a tar that was cut between two entries looks the same.
    Unmarked,
}

/// Walks over the entries of a tar.
pub struct Entries<R> {
    input: R,
    /// Bytes of the current member and its padding that were not read yet.
    left: u64,
    padding: u64,
    /// A header that was read already.
    ahead: Option<[u8; BLOCK]>,
    /// Whether a header was read.
    begun: bool,
    end: Option<End>,
}

/// What extension headers said about the member behind them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    long_name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Entries<R> {
    /// Starts at the first byte of a tar.
    pub fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
            ahead: None,
            begun: false,
            end: None,
        }
    }

    /// How it ended, once [`Entries::next`] has answered `None`.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The next entry; what was not read of the last one is skipped. `None` at the end of the tar.
    ///
    /// # Errors
    /// [`TarError`]; nothing can be read after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "a lending walk: the member's bytes must be read before the next step"
    )]
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        let mut pending = false;
        while self.end.is_none() {
            self.skip_rest()?;
            let Some(block) = self.header_block(pending)? else { break };
            if block.iter().all(|b| *b == 0) {
                if pending {
                    return Err(TarError::Malformed("an extension header without a member".into()));
                }
                self.end = Some(End::Marked);
                break;
            }
            let header = Header::from_byte_slice(&block);
            if let Err(error) = check_sum(header) {
                let compressed = compression(&block).filter(|_| !self.begun);
                return Err(compressed.map_or(error, TarError::Compressed));
            }
            self.begun = true;
            let kind = header.entry_type();
            let mut size = header.entry_size().map_err(|e| TarError::Malformed(e.to_string()))?;
            if let (Some(longer), false) = (extension.size, is_extension(kind)) {
                size = longer;
            }
            self.left = size;
            self.padding = size.wrapping_neg() % BLOCK as u64;
            match kind {
                EntryType::XHeader => {
                    let records = self.extension_bytes()?;
                    read_pax(&records, &mut extension)?;
                    pending = true;
                }
                EntryType::GNULongName => {
                    let mut name = self.extension_bytes()?;
                    match name.iter().position(|b| *b == 0) {
                        Some(end) => name.truncate(end),
                        None => self.ends_here()?,
                    }
                    extension.long_name = Some(name);
                    pending = true;
                }
                EntryType::GNULongLink | EntryType::XGlobalHeader => {
                    if size > MAX_EXTENSION {
                        return Err(too_long(size));
                    }
                }
                EntryType::GNUSparse => return Err(TarError::Malformed("sparse members are not supported".into())),
                // Readers disagree whether these have content, so bytes behind them could be read in two ways.
                EntryType::Link | EntryType::Symlink | EntryType::Char | EntryType::Block | EntryType::Directory | EntryType::Fifo
                    if size != 0 =>
                {
                    return Err(TarError::Malformed("a link, directory or device with content".into()));
                }
                kind => {
                    let said = extension;
                    let name = said.path.or(said.long_name).unwrap_or_else(|| header.path_bytes().into_owned());
                    let kind = entry_kind(kind, &name);
                    return Ok(Some(Entry { name, kind, size }));
                }
            }
        }
        Ok(None)
    }

    /// The next entry behind the end marker, where another tar was appended to this one; `tar --ignore-zeros` would go on to it. `None` at
    /// the end of the bytes.
    ///
    /// # Errors
    /// [`TarError`] for bytes that are no tar.
    pub fn next_behind_end(&mut self) -> Result<Option<Entry>, TarError> {
        loop {
            while self.end == Some(End::Marked) {
                let mut block = [0; BLOCK];
                let got = self.fill(&mut block)?;
                match block[..got].iter().all(|b| *b == 0) {
                    true if got < BLOCK => return Ok(None),
                    true => {}
                    false if got < BLOCK => return Err(TarError::Truncated),
                    false => (self.ahead, self.end) = (Some(block), None),
                }
            }
            if let Some(entry) = self.next()? {
                return Ok(Some(entry));
            }
            if self.end == Some(End::Unmarked) {
                return Ok(None);
            }
        }
    }

    /// The block of the next header; `None` where the bytes end instead, and may.
    fn header_block(&mut self, pending: bool) -> Result<Option<[u8; BLOCK]>, TarError> {
        if let Some(block) = self.ahead.take() {
            return Ok(Some(block));
        }
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            BLOCK => Ok(Some(block)),
            0 if self.begun && !pending => {
                self.end = Some(End::Unmarked);
                Ok(None)
            }
            got if !self.begun => Err(compression(&block[..got]).map_or(TarError::Truncated, TarError::Compressed)),
            _ => Err(TarError::Truncated),
        }
    }

    /// The bytes of the current member.
    ///
    /// # Errors
    /// [`TarError::Truncated`] or [`TarError::Io`].
    pub fn read(&mut self) -> Result<Vec<u8>, TarError> {
        // Grown while reading: a size is a claim until the bytes are there.
        let mut bytes = Vec::with_capacity(usize::try_from(self.left).unwrap_or(0).min(16 << 20));
        let got = (&mut self.input).take(self.left).read_to_end(&mut bytes).map_err(TarError::Io)? as u64;
        self.left -= got;
        if self.left > 0 { Err(TarError::Truncated) } else { Ok(bytes) }
    }

    fn extension_bytes(&mut self) -> Result<Vec<u8>, TarError> {
        if self.left > MAX_EXTENSION {
            return Err(too_long(self.left));
        }
        self.read()
    }

    /// Whether a name that has no NUL ends with its size. To GNU tar a name goes on to its NUL wherever that lies, to others up to its size: where
    /// they disagree it could be read in two ways.
    fn ends_here(&mut self) -> Result<(), TarError> {
        let mut next = [0];
        if self.padding > 0 {
            self.padding -= 1;
            self.input.read_exact(&mut next).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => TarError::Truncated,
                _ => TarError::Io(e),
            })?;
        }
        if next == [0] {
            Ok(())
        } else {
            Err(TarError::Malformed("a long name that goes on behind its size".into()))
        }
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self
            .left
            .checked_add(self.padding)
            .ok_or_else(|| TarError::Malformed("a size beyond 2⁶⁴".into()))?;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink()).map_err(TarError::Io)?;
        if skipped < rest { Err(TarError::Truncated) } else { Ok(()) }
    }

    /// Fills the block as far as there are bytes; answers how many.
    fn fill(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, TarError> {
        let mut got = 0;
        while got < BLOCK {
            match self.input.read(&mut block[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(TarError::Io(e)),
            }
        }
        Ok(got)
    }
}

fn entry_kind(kind: EntryType, name: &[u8]) -> EntryKind {
    match kind {
        // Before POSIX a directory was a file whose name ends with a slash.
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous => EntryKind::Regular,
        EntryType::Directory => EntryKind::Directory,
        EntryType::Link => EntryKind::HardLink,
        EntryType::Symlink => EntryKind::SymbolicLink,
        EntryType::Char | EntryType::Block | EntryType::Fifo => EntryKind::Special,
        _ => EntryKind::Other,
    }
}

/// The compression format that these first bytes belong to.
fn compression(start: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 5] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
    ];
    MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| *name)
}

fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
    )
}

fn too_long(size: u64) -> TarError {
    TarError::Malformed(format!("an extension header of {size} bytes (limit {MAX_EXTENSION})"))
}

fn check_sum(header: &Header) -> Result<(), TarError> {
    let bytes = header.as_bytes();
    let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * u32::from(b' ');
    match header.cksum() {
        Ok(written) if written == sum => Ok(()),
        Ok(_) => Err(TarError::Malformed("header checksum mismatch".into())),
        Err(_) => Err(TarError::Malformed("no tar header where one should be".into())),
    }
}

/// PAX records `<length> <key>=<value>\n`, walked by their lengths, since values may hold line breaks.
fn read_pax(mut records: &[u8], into: &mut Extension) -> Result<(), TarError> {
    let bad = || TarError::Malformed("bad PAX record".into());
    while !records.is_empty() && records[0] != 0 {
        let space = records.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize = std::str::from_utf8(&records[..space])
            .ok()
            .and_then(|t| t.parse().ok())
            .ok_or_else(bad)?;
        if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &records[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" if value.contains(&0) => return Err(TarError::Malformed("a PAX path with a NUL in it".into())),
            b"path" => into.path = Some(value.to_vec()),
            b"size" => into.size = Some(std::str::from_utf8(value).ok().and_then(|t| t.parse().ok()).ok_or_else(bad)?),
            _ if key.starts_with(b"GNU.sparse.") => return Err(TarError::Malformed("sparse members are not supported".into())),
            _ => {}
        }
        records = &records[length..];
    }
    Ok(())
}

#[cfg(test)]
mod tests;
