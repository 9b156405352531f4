//! How many samples each window has, when the setting changed in the middle of one.

use crate::cursor::Cursor;

/// Sizes of a stream's windows, from the one that its cursor lies in.
///
/// Those of which samples were taken keep their size: the permutation of another size would repeat some and lose others.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowSizes {
    configured: u32,
    current: u32,
    /// Of windows behind the first one that the cursor reaches into.
    reached: u32,
    /// Taken samples that lie in the current window and behind it.
    taken: u32,
}

impl WindowSizes {
    /// From `start` on, with `configured` for what has not begun.
    pub(super) fn new(start: &Cursor, configured: u32) -> Self {
        let known = |size| if size == 0 { configured } else { size };
        Self {
            configured,
            current: if start.taken == 0 { configured } else { known(start.window) },
            reached: known(start.next_window),
            taken: start.taken,
        }
    }

    /// Samples of the window that is being filled.
    pub(super) fn current(&self) -> u32 {
        self.current
    }

    /// The largest that there will be.
    pub(super) fn largest(&self) -> u32 {
        self.configured.max(self.current).max(self.reached)
    }

    /// The current window holds `samples`; answers the size of the next one, which is the current one now.
    pub(super) fn filled(&mut self, samples: u32) -> u32 {
        self.taken = self.taken.saturating_sub(samples);
        self.current = if self.taken > 0 { self.reached } else { self.configured };
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(taken: u32, window: u32, next_window: u32) -> [u32; 4] {
        let start = Cursor {
            taken,
            window,
            next_window,
            ..Cursor::default()
        };
        let mut sizes = WindowSizes::new(&start, 10);
        std::array::from_fn(|_| {
            let size = sizes.current();
            sizes.filled(size);
            size
        })
    }

    #[test]
    fn windows_that_were_begun_keep_their_size() {
        assert_eq!(sizes(0, 40, 40), [10; 4], "nothing taken");
        assert_eq!(sizes(7, 0, 0), [10; 4], "an older version's cursor");
        assert_eq!(sizes(7, 40, 40), [40, 10, 10, 10]);
        assert_eq!(sizes(40, 40, 40), [40, 10, 10, 10], "taken to its end");
        assert_eq!(sizes(42, 40, 40), [40, 40, 10, 10], "a row of ranks reaches into the next one");
        assert_eq!(sizes(42, 40, 30), [40, 30, 10, 10], "which had another size already");
    }
}
