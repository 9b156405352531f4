//! Where a sleeping thread came from, told without asking it: no signal is sent, no lock taken, nothing of the thread touched.
//!
//! A true backtrace would have to be made by the thread itself in a signal handler, where std's unwinder is not safe: it allocates and locks,
//! perhaps the very lock that hangs. Instead the kernel says where a sleeping thread's stack pointer and program counter are
//! (`/proc/self/task/N/syscall`), and `/proc/self/mem` is read like a file. A word of the stack that points behind a call instruction is a likely
//! return address. Some are left over from calls that have ended, so this is a list of suspects in order, the innermost first. A thread that
//! computes has no such line.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes of a stack that are looked through, from the stack pointer on.
const DEPTH: usize = 32 << 10;
/// Suspects of one thread at most.
const MOST: usize = 48;
/// Bytes before an address that hold a call instruction.
const CALL: usize = 7;

/// A file that is mapped as code.
#[derive(Debug, PartialEq, Eq)]
struct Code {
    range: Range<u64>,
    /// Where the file begins in memory: an address less this is what `addr2line` takes.
    base: u64,
    path: String,
}

/// This process's memory and what of it is code.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    code: Vec<Code>,
}

/// Code of `/proc/self/maps`.
fn code(maps: &str) -> Vec<Code> {
    let mut found = Vec::<Code>::new();
    let mut file = (String::new(), 0);
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(rights), Some(offset), path) = (fields.next(), fields.next(), fields.next(), fields.nth(2)) else {
            continue;
        };
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let Some((start, end)) = range.split_once('-').and_then(|(a, b)| hex(a).zip(hex(b))) else {
            continue;
        };
        let path = path.unwrap_or_default();
        if hex(offset) == Some(0) {
            file = (path.to_owned(), start);
        }
        if rights.contains('x') && path.starts_with('/') && file.0 == path {
            found.push(Code {
                range: start..end,
                base: file.1,
                path: path.to_owned(),
            });
        }
    }
    found
}

/// Whether the bytes before an address end with a call.
fn ends_with_call(before: [u8; CALL]) -> bool {
    if cfg!(target_arch = "aarch64") {
        let word = u32::from_le_bytes([before[3], before[4], before[5], before[6]]);
        // bl, blr.
        return word & 0xfc00_0000 == 0x9400_0000 || word & 0xffff_fc1f == 0xd63f_0000;
    }
    // call rel32; call r/m64 (FF /2) of 2, 3, 6 or 7 bytes.
    before[CALL - 5] == 0xe8
        || [2, 3, 6, 7]
            .into_iter()
            .any(|n| before[CALL - n] == 0xff && before[CALL - n + 1] & 0x38 == 0x10)
}

impl Memory {
    /// Opens it; none where there is no such file system.
    #[must_use]
    pub(super) fn open() -> Option<Self> {
        Some(Self {
            file: File::open("/proc/self/mem").ok()?,
            code: code(&std::fs::read_to_string("/proc/self/maps").ok()?),
        })
    }

    fn code_of(&self, address: u64) -> Option<&Code> {
        self.code.iter().find(|c| c.range.contains(&address))
    }

    fn follows_a_call(&self, address: u64) -> bool {
        let mut before = [0u8; CALL];
        self.code_of(address).is_some_and(|c| address >= c.range.start + CALL as u64)
            && self.file.read_exact_at(&mut before, address - CALL as u64).is_ok()
            && ends_with_call(before)
    }

    /// The program counter and the likely return addresses of a thread whose `syscall` file says `call`.
    fn addresses(&self, call: &str) -> Vec<u64> {
        let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let mut fields = call.split_ascii_whitespace().rev();
        let (Some(counter), Some(stack)) = (fields.next().and_then(hex), fields.next().and_then(hex)) else {
            return Vec::new();
        };
        let mut bytes = vec![0u8; DEPTH];
        // Short at the end of the stack.
        let read = self.file.read_at(&mut bytes, stack).unwrap_or(0);
        let words = bytes[..read]
            .chunks_exact(8)
            .map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes")));
        let suspects = words.filter(|address| self.follows_a_call(*address)).take(MOST);
        std::iter::once(counter).chain(suspects).collect()
    }

    /// The same as `file+0x…`, what `addr2line -Cfe file 0x…` makes a function of.
    #[must_use]
    pub(super) fn frames(&self, call: &str) -> Vec<String> {
        let named = |address: u64| {
            let code = self.code_of(address)?;
            Some(format!("{}+{:#x}", code.path, address - code.base))
        };
        self.addresses(call).into_iter().filter_map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_found_in_the_map() {
        let maps = "55d0c000-55d0d000 r--p 00000000 08:01 12 /usr/bin/x y\n\
                    7f000000-7f001000 r--p 00000000 08:01 34 /lib/libc.so\n\
                    7f001000-7f005000 r-xp 00001000 08:01 34 /lib/libc.so\n\
                    7f009000-7f00a000 r-xp 00000000 00:00 0 \n\
                    7ffe0000-7ffe1000 r-xp 00000000 00:00 0 [vdso]\n\
                    nonsense\n";
        let want = Code {
            range: 0x7f00_1000..0x7f00_5000,
            base: 0x7f00_0000,
            path: "/lib/libc.so".into(),
        };
        assert_eq!(code(maps), [want]);
    }

    #[test]
    fn calls_are_told_from_other_code() {
        if cfg!(target_arch = "x86_64") {
            assert!(ends_with_call([0, 0, 0xe8, 1, 2, 3, 4]), "call rel32");
            assert!(ends_with_call([0, 0, 0, 0, 0, 0xff, 0xd0]), "call rax");
            assert!(ends_with_call([0, 0xff, 0x15, 1, 2, 3, 4]), "call [rip+…]");
            assert!(!ends_with_call([0; CALL]) && !ends_with_call([0, 0, 0xe9, 1, 2, 3, 4]), "jmp");
        }
    }

    #[test]
    fn a_thread_that_computes_or_a_broken_line_has_no_frames() {
        let memory = Memory::open().unwrap();
        for call in ["running", "", "7", "0x1", "3 0x1 zz"] {
            assert!(memory.frames(call).is_empty(), "{call}");
        }
        // A stack that is not there: the counter alone, and that lies in no file.
        assert!(memory.frames("0 0x10 0x10").is_empty());
    }

    #[inline(never)]
    fn dozes(wait: &std::sync::mpsc::Receiver<()>) -> bool {
        std::hint::black_box(wait.recv().is_err())
    }

    #[test]
    fn the_function_that_a_thread_sleeps_in_is_among_its_suspects() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let me = std::fs::read_link("/proc/thread-self").unwrap();
            tell.send(me).unwrap();
            dozes(&stopped)
        });
        let folder = std::path::Path::new("/proc").join(told.recv().unwrap());
        let memory = Memory::open().unwrap();
        let from = dozes as *const () as u64;
        let found = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let call = std::fs::read_to_string(folder.join("syscall")).unwrap();
            memory.addresses(&call).iter().any(|a| (from..from + 256).contains(a))
        });
        let frames = memory.frames(&std::fs::read_to_string(folder.join("syscall")).unwrap());
        drop(stop);
        assert!(thread.join().unwrap());
        assert!(found, "{frames:?}");
        let own = std::env::current_exe().unwrap().canonicalize().unwrap();
        assert!(frames.iter().any(|f| f.starts_with(&format!("{}+0x", own.display()))), "{frames:?}");
    }
}
