//! Which samples of a stream go onto the contact sheet.

use bytes::Bytes;
use splitmask_pipeline::types::RawSample;

/// Evenly spaced samples of a stream of unknown length: between `want` and twice that many, thinned out as the stream goes on.
#[derive(Default)]
pub(super) struct Kept {
    want: usize,
    stride: u64,
    items: Vec<RawSample>,
}

impl Kept {
    /// For a sheet of `want` thumbnails.
    pub(super) fn new(want: usize) -> Self {
        Self { want, ..Self::default() }
    }

    pub(super) fn offer(&mut self, index: u64, sample: &RawSample) {
        if self.want == 0 || !index.is_multiple_of(self.stride.max(1)) {
            return;
        }
        // Copied, for a slice would keep its whole network buffer alive.
        self.items.push(RawSample {
            image: Bytes::copy_from_slice(&sample.image),
            map: sample.map.as_deref().map(Bytes::copy_from_slice),
            objects: sample.objects.as_deref().map(Bytes::copy_from_slice),
            ..sample.clone()
        });
        if self.items.len() == 2 * self.want {
            let mut index = 0;
            self.items.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride = 2 * self.stride.max(1);
        }
    }

    /// `want` of the kept, evenly spaced.
    pub(super) fn choose(self) -> Vec<RawSample> {
        let (have, want) = (self.items.len(), self.want.min(self.items.len()));
        let chosen: Vec<usize> = (0..want).map(|i| i * have / want).collect();
        self.items
            .into_iter()
            .enumerate()
            .filter(|(i, _)| chosen.binary_search(i).is_ok())
            .map(|(_, item)| item)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use splitmask_pipeline::types::SampleId;

    use super::*;

    fn sample(i: u64) -> RawSample {
        RawSample {
            id: SampleId {
                epoch: 0,
                shard: 0,
                member: i as u32,
            },
            shard: "s".into(),
            key: i.to_string().as_str().into(),
            image: Bytes::new(),
            extension: "png".into(),
            label: None,
            map: None,
            objects: None,
        }
    }

    /// From streams of any length the sheet gets samples of all parts, about evenly spaced.
    #[test]
    fn the_sheet_gets_evenly_spaced_samples() {
        for length in [3u64, 10, 19, 20, 21, 1000, 4321] {
            let mut kept = Kept::new(10);
            (0..length).for_each(|i| kept.offer(i, &sample(i)));
            let chosen: Vec<u64> = kept
                .choose()
                .into_iter()
                .map(|sample| sample.key.to_string().parse().unwrap())
                .collect();
            assert_eq!(chosen.len() as u64, length.min(10));
            let gaps: Vec<u64> = chosen
                .windows(2)
                .map(|w| w[1] - w[0])
                .chain([length - chosen[chosen.len() - 1]])
                .collect();
            let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
            assert!(chosen[0] == 0 && *most <= 3 * least.max(&1), "{length}: {chosen:?}");
        }
    }
}
