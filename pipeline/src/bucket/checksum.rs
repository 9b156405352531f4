//! Reads a shard and compares the SHA-256 of what was read with the manifest's.

use std::io::{self, Read};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::differences::Differences;
use super::shard::Shard;
use crate::file::hex;

/// What may lie between a tar's end marker and the end of the shard and is still read. A reader that stopped earlier did so for another reason.
const MAX_TAIL: u64 = 1 << 20;

/// Passes bytes on; when it is dropped behind the last one, it tells if they are others than the manifest's.
pub struct Compared {
    input: Box<dyn Read + Send>,
    shard: Shard,
    differences: Arc<Differences>,
    hasher: Sha256,
    seen: u64,
}

impl Compared {
    /// Of a shard that the manifest knows the checksum of.
    #[must_use]
    pub fn new(input: Box<dyn Read + Send>, shard: &Shard, differences: &Arc<Differences>) -> Self {
        Self {
            input,
            shard: shard.clone(),
            differences: Arc::clone(differences),
            hasher: Sha256::new(),
            seen: 0,
        }
    }
}

impl Read for Compared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.seen += n as u64;
        Ok(n)
    }
}

impl Drop for Compared {
    fn drop(&mut self) {
        let size = self.shard.bytes.unwrap_or(0);
        let mut tail = vec![0; 64 << 10];
        while self.seen < size && size - self.seen <= MAX_TAIL {
            // What cannot be read was told by whoever read before.
            if !matches!(self.read(&mut tail), Ok(n) if n > 0) {
                return;
            }
        }
        if self.seen == size {
            self.differences
                .hashed(&self.shard, &hex(std::mem::take(&mut self.hasher).finalize()));
        }
    }
}
