//! Memory that a step freed: kept for the next one, and given back. In a program of its own, for the settings are the whole process's.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::hint::black_box;

use torch_ext::{give_back_freed_memory, keep_freed_memory};

/// Blocks of a step, and their size: as large as glibc keeps.
const BLOCKS: usize = 4;
const BLOCK: usize = 30 << 20;

/// Memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let (_, behind) = status.split_once("VmRSS:").unwrap();
    1024 * behind.split_whitespace().next().unwrap().parse::<usize>().unwrap()
}

/// Pages that this thread was given so far, whatever their size.
fn pages() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    behind_name.split_whitespace().nth(7).unwrap().parse().unwrap()
}

fn step() {
    drop(black_box([(); BLOCKS].map(|()| vec![1_u8; BLOCK])));
}

#[test]
fn what_a_step_freed_is_there_for_the_next_one_until_it_is_given_back() {
    assert!(
        keep_freed_memory(),
        "GLIBC_TUNABLES and MALLOC_…_ of the environment say otherwise: unset them"
    );
    // On a thread of its own, as a training is.
    let body = || {
        let before = pages();
        step();
        let (first, before) = (pages() - before, pages());
        (0..8).for_each(|_| step());
        let given = pages() - before;
        assert!(given < first, "{given} pages in 8 steps, {first} in the first");
        let kept = resident();
        give_back_freed_memory();
        let left = resident();
        assert!(left + BLOCKS * BLOCK * 9 / 10 < kept, "{kept} bytes became {left}");
        // It goes on being kept.
        step();
        assert!(resident() + BLOCK > kept);
    };
    std::thread::spawn(body).join().unwrap();
}
