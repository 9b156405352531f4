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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ours(bytes: &[u8]) -> (Vec<(String, Vec<u8>)>, Option<TarError>) {
        let mut members = Members::new(bytes);
        let mut out = vec![];
        loop {
            match members.next() {
                Ok(None) => return (out, None),
                Err(e) => return (out, Some(e)),
                Ok(Some(member)) => match members.read() {
                    Ok(bytes) => out.push((member.path, bytes)),
                    Err(e) => return (out, Some(e)),
                },
            }
        }
    }

    fn header(path: &str, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header
    }

    fn padded(out: &mut Vec<u8>, header: &Header, data: &[u8]) {
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }

    proptest! {
        #[test]
        fn what_the_tar_crate_reads_is_read_the_same(files in proptest::collection::vec(("[a-z/]{1,180}[a-z]", proptest::collection::vec(any::<u8>(), 0..1500)), 0..8)) {
            let mut builder = tar::Builder::new(vec![]);
            for (path, data) in &files {
                let mut header = Header::new_gnu();
                header.set_size(data.len() as u64);
                builder.append_data(&mut header, path.trim_start_matches('/'), data.as_slice()).unwrap();
            }
            let bytes = builder.into_inner().unwrap();
            let mut theirs = vec![];
            for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
                let mut entry = entry.unwrap();
                let mut data = vec![];
                entry.read_to_end(&mut data).unwrap();
                theirs.push((String::from_utf8(entry.path_bytes().into_owned()).unwrap(), data));
            }
            let (mine, error) = ours(&bytes);
            prop_assert!(error.is_none(), "{error:?}");
            prop_assert_eq!(mine, theirs);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), flips in proptest::collection::vec((0usize..3000, any::<u8>()), 0..20)) {
            let _ = ours(&bytes);
            // Near-valid input gets deeper than noise.
            let mut valid = vec![];
            padded(&mut valid, &header("x", EntryType::XHeader, 30), b"18 path=abc/de.jpg\n12 size=700\n");
            padded(&mut valid, &header("a.jpg", EntryType::Regular, bytes.len() as u64), &bytes);
            for (at, value) in flips {
                if at < valid.len() { valid[at] = value; }
            }
            let _ = ours(&valid);
            bytes.clear();
        }
    }

    #[test]
    fn the_pax_size_wins_so_inner_bytes_are_never_members() {
        // The outer header says 0 bytes, PAX says 1024: those hold a whole tar header that must stay data.
        let mut inner = vec![];
        padded(&mut inner, &header("evil.jpg", EntryType::Regular, 4), b"evil");
        let pax = b"13 size=1024\n";
        let mut bytes = vec![];
        padded(&mut bytes, &header("pax", EntryType::XHeader, pax.len() as u64), pax);
        padded(&mut bytes, &header("good.bin", EntryType::Regular, 0), &inner);
        padded(&mut bytes, &header("last.jpg", EntryType::Regular, 1), b"x");
        bytes.extend_from_slice(&[0; 1024]);
        let (members, error) = ours(&bytes);
        assert!(error.is_none(), "{error:?}");
        let names: Vec<&str> = members.iter().map(|m| m.0.as_str()).collect();
        assert_eq!(names, ["good.bin", "last.jpg"]);
        assert_eq!(members[0].1, inner);
    }

    #[test]
    fn what_could_be_read_in_two_ways_or_fill_the_memory_is_refused() {
        let end = [0; 1024];
        for (name, kind, size, reason) in [
            ("huge PAX header", EntryType::XHeader, 1u64 << 33, "extension header"),
            ("huge long name", EntryType::GNULongName, 2 << 20, "extension header"),
            ("huge global header", EntryType::XGlobalHeader, 2 << 20, "extension header"),
            ("link with content", EntryType::Symlink, 512, "content"),
            ("directory with content", EntryType::Directory, 512, "content"),
            ("sparse", EntryType::GNUSparse, 0, "sparse"),
        ] {
            let mut bytes = header("x", kind, size).as_bytes().to_vec();
            bytes.extend_from_slice(&end);
            let (members, error) = ours(&bytes);
            assert!(members.is_empty(), "{name}");
            assert!(
                matches!(&error, Some(TarError::Malformed(detail)) if detail.contains(reason)),
                "{name}: {error:?}"
            );
        }
    }

    #[test]
    fn links_devices_and_directories_are_passed_over() {
        let mut bytes = vec![];
        for kind in [
            EntryType::Directory,
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Char,
            EntryType::Block,
            EntryType::Fifo,
        ] {
            padded(&mut bytes, &header("x.jpg", kind, 0), b"");
        }
        padded(&mut bytes, &header("a.jpg", EntryType::Regular, 1), b"x");
        bytes.extend_from_slice(&[0; 1024]);
        let (members, error) = ours(&bytes);
        assert!(error.is_none());
        assert_eq!(members, [("a.jpg".to_owned(), b"x".to_vec())]);
    }

    #[test]
    fn names_that_could_be_read_in_two_ways_are_refused() {
        let name = [b'd'; 120];
        let long = |size: u64, behind: &[u8]| {
            let mut out = vec![];
            padded(&mut out, &header("LongLink", EntryType::GNULongName, size), behind);
            padded(&mut out, &header("short", EntryType::Regular, 2), b"xy");
            out.extend_from_slice(&[0; 2 * BLOCK]);
            ours(&out)
        };
        let (members, error) = long(120, &name);
        assert!(
            error.is_none() && members[0].0.len() == 120,
            "a name without a NUL, and nothing behind it"
        );
        let (_, error) = long(119, &name);
        assert!(matches!(error, Some(TarError::Malformed(m)) if m.contains("long name")));
        let (members, error) = long(120, b"a/b\0c");
        assert!(error.is_none() && members[0].0 == "a/b", "up to its NUL");
        let mut out = vec![];
        padded(&mut out, &header("x", EntryType::XHeader, 16), b"16 path=p/\0.jpg\n");
        padded(&mut out, &header("short", EntryType::Regular, 2), b"xy");
        out.extend_from_slice(&[0; 2 * BLOCK]);
        assert!(matches!(ours(&out).1, Some(TarError::Malformed(m)) if m.contains("NUL")));
    }
}
