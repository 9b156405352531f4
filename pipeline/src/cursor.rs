//! A position in the endless stream of samples, small enough for a checkpoint.

use serde::{Deserialize, Serialize};

/// Where the stream goes on: everything before it was consumed, nothing after it.
///
/// The stream of an epoch is the shards in plan order; consecutive *windows* of `shuffle_window` samples are permuted as a whole. So a
/// position is the window's first sample, its size and the number of samples taken from it, and a resume re-reads one window at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Pass over the data, from 0.
    pub epoch: u32,
    /// Place in the epoch's shard plan of the shard that holds the window's first sample.
    pub plan_position: u32,
    /// Sample of that shard at which the window begins.
    pub member: u32,
    /// Samples of the permuted window already taken, over all ranks. With several ranks it may reach into the next window by less than
    /// their number, because all ranks finish a row of one sample each.
    pub taken: u32,
    /// Samples of all windows before this one, over all ranks and epochs; their ranks follow from it.
    #[serde(default)]
    pub before: u64,
    /// Size that this window was to have, samples; an epoch's last one may hold fewer. A window under way keeps it when `shuffle_window`
    /// changes, else what was taken of it could not be told from the rest. 0 in the cursors of older versions: the configured one.
    #[serde(default)]
    pub window: u32,
    /// The same for the window behind it, into which `taken` may reach.
    #[serde(default)]
    pub next_window: u32,
    /// Places of a mixture's sources, which then hold what the fields above hold for a single place; empty without a mixture.
    #[serde(default, skip_serializing_if = "Places::is_empty")]
    pub sources: Places,
}

/// Sources of a mixture at most; a cursor is copied with every sample.
pub const MAX_SOURCES: usize = 8;

/// Where one source of a mixture goes on; the fields are those of [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePlace {
    /// Hash of the source's name.
    pub source: u64,
    /// Pass over this source.
    pub epoch: u32,
    /// Shard with the window's first sample.
    pub plan_position: u32,
    /// First sample of the window in it.
    pub member: u32,
    /// Samples of the window taken.
    pub taken: u32,
    /// Samples of earlier windows.
    pub before: u64,
    /// Size of the window.
    #[serde(default)]
    pub window: u32,
    /// Size of the one behind it.
    #[serde(default)]
    pub next_window: u32,
}

impl SourcePlace {
    /// The place of a source whose stream has this cursor.
    #[must_use]
    pub fn new(source: u64, cursor: Cursor) -> Self {
        Self {
            source,
            epoch: cursor.epoch,
            plan_position: cursor.plan_position,
            member: cursor.member,
            taken: cursor.taken,
            before: cursor.before,
            window: cursor.window,
            next_window: cursor.next_window,
        }
    }

    /// The cursor of the source's stream.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            plan_position: self.plan_position,
            member: self.member,
            taken: self.taken,
            before: self.before,
            window: self.window,
            next_window: self.next_window,
            sources: Places::default(),
        }
    }
}

/// Up to [`MAX_SOURCES`] places; a list in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<SourcePlace>", into = "Vec<SourcePlace>")]
pub struct Places {
    len: u8,
    all: [SourcePlace; MAX_SOURCES],
}

impl Places {
    /// Whether there is no mixture.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one; one too many is left out.
    pub fn push(&mut self, place: SourcePlace) {
        if let Some(free) = self.all.get_mut(usize::from(self.len)) {
            *free = place;
            self.len += 1;
        }
    }

    /// The place of a source.
    #[must_use]
    pub fn of(&self, source: u64) -> Option<&SourcePlace> {
        self.all[..usize::from(self.len)].iter().find(|p| p.source == source)
    }
}

impl From<Places> for Vec<SourcePlace> {
    fn from(places: Places) -> Self {
        places.all[..usize::from(places.len)].to_vec()
    }
}

impl TryFrom<Vec<SourcePlace>> for Places {
    type Error = String;

    fn try_from(list: Vec<SourcePlace>) -> Result<Self, String> {
        if list.len() > MAX_SOURCES {
            return Err(format!("{} sources; this version holds {MAX_SOURCES}", list.len()));
        }
        let mut places = Self::default();
        list.into_iter().for_each(|place| places.push(place));
        Ok(places)
    }
}

impl Cursor {
    /// Samples consumed since the start of the run, over all ranks.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.before + u64::from(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_of_older_versions_are_read() {
        let first = r#"{"epoch":1,"plan_position":2,"member":3,"taken":4}"#;
        let mixed = r#"{"epoch":1,"plan_position":0,"member":0,"taken":0,"before":9,
            "sources":[{"source":7,"epoch":1,"plan_position":2,"member":3,"taken":4,"before":5}]}"#;
        let first: Cursor = serde_json::from_str(first).unwrap();
        assert_eq!((first.samples(), first.window, first.next_window), (4, 0, 0));
        let mixed: Cursor = serde_json::from_str(mixed).unwrap();
        let place = mixed.sources.of(7).unwrap().cursor();
        assert_eq!((mixed.samples(), place.samples(), place.window), (9, 9, 0));
    }

    #[test]
    fn a_place_of_a_mixture_keeps_the_sizes_of_its_windows() {
        let cursor = Cursor {
            taken: 4,
            window: 40,
            next_window: 10,
            ..Cursor::default()
        };
        let place = SourcePlace::new(7, cursor);
        let read: SourcePlace = serde_json::from_str(&serde_json::to_string(&place).unwrap()).unwrap();
        assert_eq!(read.cursor(), cursor);
    }
}
