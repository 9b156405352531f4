//! Members of a tar stream, strictly read: what does not add up is an error, never guessed around.
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
    /// It ends before its end marker.
    Truncated,
    /// It is not a tar, or one that could be read in two ways.
    Malformed(String),
    /// The bytes could not be had.
    Io(io::Error),
}

/// A regular file in a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path as written, invalid UTF-8 replaced.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// Walks over the regular files of a tar.
pub struct Members<R> {
    input: R,
    /// Bytes of the current member and its padding that were not read yet.
    left: u64,
    padding: u64,
    ended: bool,
}

/// What extension headers said about the member behind them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    long_name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Members<R> {
    /// Starts at the first byte of a tar.
    pub fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next regular file; what was not read of the last one is skipped. `None` after the end marker.
    ///
    /// # Errors
    /// [`TarError`]; nothing can be read after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "a lending walk: the member's bytes must be read before the next step"
    )]
    pub fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut extension = Extension::default();
        let mut pending = false;
        while !self.ended {
            self.skip_rest()?;
            let mut block = [0; BLOCK];
            if !self.fill(&mut block)? {
                return Err(TarError::Truncated);
            }
            if block.iter().all(|b| *b == 0) {
                if pending {
                    return Err(TarError::Malformed("an extension header without a member".into()));
                }
                self.ended = true;
                break;
            }
            let header = Header::from_byte_slice(&block);
            check_sum(header)?;
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
                EntryType::Regular | EntryType::Continuous => {
                    let said = std::mem::take(&mut extension);
                    pending = false;
                    let name = said.path.or(said.long_name).unwrap_or_else(|| header.path_bytes().into_owned());
                    let path = String::from_utf8_lossy(&name).into_owned();
                    // Before POSIX a directory was a file whose name ends with a slash.
                    if !path.ends_with('/') {
                        return Ok(Some(Member { path, size }));
                    }
                }
                EntryType::GNUSparse => return Err(TarError::Malformed("sparse members are not supported".into())),
                EntryType::Link | EntryType::Symlink | EntryType::Char | EntryType::Block | EntryType::Directory | EntryType::Fifo => {
                    // Readers disagree whether such members have content, so bytes behind them could be read in two ways.
                    if size != 0 {
                        return Err(TarError::Malformed("a link, directory or device with content".into()));
                    }
                    (extension, pending) = (Extension::default(), false);
                }
                _ => (extension, pending) = (Extension::default(), false),
            }
        }
        Ok(None)
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

    /// Fills the block; false if the stream ends before or in it.
    fn fill(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        match self.input.read_exact(block) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(TarError::Io(e)),
        }
    }
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
