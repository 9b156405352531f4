//! What a panic says on stderr.

use std::io::Write;
use std::panic::{self, PanicHookInfo};

/// Address space that a backtrace may take, bytes: the symbols of the program and of libtorch are mapped and sorted.
const BACKTRACE: usize = 1 << 30;

/// From now on a panic in a process whose memory is exhausted is told without a backtrace, also where `RUST_BACKTRACE` asks for one: std holds a lock while
/// it writes a backtrace, an allocation that fails meanwhile is told with a backtrace too, and would wait for that lock for ever.
pub fn install() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| match has_room(BACKTRACE) {
        true => usual(info),
        false => without_backtrace(info),
    }));
}

fn has_room(bytes: usize) -> bool {
    let mut room = Vec::<u8>::new();
    let found = room.try_reserve_exact(bytes).is_ok();
    // An allocation that nobody looks at need not be made.
    std::hint::black_box(&room);
    found
}

fn without_backtrace(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?");
    let _ = writeln!(
        std::io::stderr().lock(),
        "\nthread '{name}' {info}\nno backtrace: memory is too short for one"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_no_room() {
        assert!(has_room(1 << 20));
        assert!(!has_room(isize::MAX as usize));
    }
}
