//! Samples into batches of flat buffers, which come back to be filled again.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::cursor::Cursor;
use crate::types::{Batch, Sample, SampleId, ViewPlan};

/// Batches whose buffers wait to be filled again. Clones share them.
#[derive(Debug, Clone)]
pub struct BatchPool {
    give: Sender<Batch>,
    take: Receiver<Batch>,
}

impl Default for BatchPool {
    fn default() -> Self {
        let (give, take) = unbounded();
        Self { give, take }
    }
}

impl BatchPool {
    /// Gives a batch's buffers back.
    pub fn recycle(&self, batch: Batch) {
        // Both ends live in this struct, so it cannot fail.
        let _ = self.give.send(batch);
    }

    /// Buffers to fill again, if there are any; they hold old content.
    #[must_use]
    pub fn spare(&self) -> Option<Batch> {
        self.take.try_recv().ok()
    }

    /// Batches waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.take.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.take.is_empty()
    }
}

/// Collects samples of one plan.
#[derive(Debug)]
pub struct Batcher {
    plan: Arc<ViewPlan>,
    capacity: usize,
    pool: BatchPool,
    current: Option<Batch>,
}

impl Batcher {
    /// Batches of `capacity` samples.
    #[must_use]
    pub fn new(plan: Arc<ViewPlan>, capacity: usize, pool: BatchPool) -> Self {
        Self {
            plan,
            capacity,
            pool,
            current: None,
        }
    }

    /// Copies a sample in; gives the batch when it is full.
    ///
    /// # Errors
    /// What does not fit the plan: number or sizes of the sample's buffers.
    pub fn push(&mut self, sample: &Sample, id: SampleId, cursor: Cursor) -> Result<Option<Batch>, String> {
        self.check(sample)?;
        let batch = match &mut self.current {
            Some(batch) => batch,
            None => {
                let fresh = self.fresh();
                self.current.insert(fresh)
            }
        };
        for (to, from) in batch.views.iter_mut().zip(&sample.views) {
            to.extend_from_slice(from);
        }
        batch.words.extend_from_slice(&sample.words);
        batch.parts.extend_from_slice(&sample.parts);
        batch.labels.push(sample.label);
        batch.ids.push(id);
        batch.len += 1;
        batch.cursor = cursor;
        Ok(if batch.len == self.capacity { self.current.take() } else { None })
    }

    /// The batch that was begun, if any.
    pub fn finish(&mut self) -> Option<Batch> {
        self.current.take()
    }

    fn fresh(&self) -> Batch {
        let plan = &self.plan;
        if let Some(mut batch) = self.pool.spare()
            && batch.sizes.iter().copied().eq(plan.sizes())
        {
            batch.views.iter_mut().for_each(Vec::clear);
            batch.words.clear();
            batch.parts.clear();
            batch.labels.clear();
            batch.ids.clear();
            batch.len = 0;
            return batch;
        }
        let n = plan.patches() * self.capacity;
        Batch {
            len: 0,
            sizes: plan.sizes().collect(),
            views: plan
                .sizes()
                .map(|side| Vec::with_capacity(self.capacity * view_bytes(side)))
                .collect(),
            words: Vec::with_capacity(if plan.words.is_some() { n } else { 0 }),
            parts: Vec::with_capacity(if plan.mask.is_some() { n } else { 0 }),
            labels: Vec::with_capacity(self.capacity),
            ids: Vec::with_capacity(self.capacity),
            cursor: Cursor::default(),
        }
    }

    fn check(&self, sample: &Sample) -> Result<(), String> {
        let plan = &self.plan;
        let n = plan.patches();
        let same = |what: &str, got: usize, want: usize| match got == want {
            true => Ok(()),
            false => Err(format!("a sample came with {got} {what} where the plan has {want}")),
        };
        same("views", sample.views.len(), plan.sizes().count())?;
        for (view, side) in sample.views.iter().zip(plan.sizes()) {
            same("bytes of a view", view.len(), view_bytes(side))?;
        }
        same("words", sample.words.len(), if plan.words.is_some() { n } else { 0 })?;
        same("parts", sample.parts.len(), if plan.mask.is_some() { n } else { 0 })
    }
}

fn view_bytes(size: u32) -> usize {
    3 * (size as usize).pow(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ColourConfig, CropConfig, MaskSpec, ViewSpec, WordSpec};

    fn plan() -> Arc<ViewPlan> {
        let view = |size| ViewSpec {
            size,
            crop: CropConfig::default(),
            colour: ColourConfig::default(),
        };
        Arc::new(ViewPlan {
            views: vec![view(4), view(2)],
            words: Some(WordSpec { patch: 2 }),
            target: None,
            mask: Some((2, MaskSpec::UniformSplit { keep: 0.5 })),
        })
    }

    fn sample(n: u8) -> (Sample, SampleId, Cursor) {
        let id = SampleId {
            epoch: 0,
            shard: 0,
            member: u32::from(n),
        };
        let sample = Sample {
            id: Some(id),
            views: vec![vec![n; 48], vec![n; 12]],
            words: vec![u32::from(n); 4],
            parts: vec![n; 4],
            label: i64::from(n),
        };
        let cursor = Cursor {
            taken: u32::from(n),
            ..Cursor::default()
        };
        (sample, id, cursor)
    }

    #[test]
    fn samples_lie_one_behind_the_other_and_the_cursor_is_the_last_ones() {
        let mut batcher = Batcher::new(plan(), 2, BatchPool::default());
        let (s, id, c) = sample(1);
        assert!(batcher.push(&s, id, c).unwrap().is_none());
        let (s, id, c) = sample(2);
        let batch = batcher.push(&s, id, c).unwrap().unwrap();
        assert_eq!((batch.len, batch.sizes.as_slice(), batch.cursor), (2, &[4, 2][..], c));
        assert_eq!(batch.views[0], [[1; 48], [2; 48]].concat());
        assert_eq!(batch.views[1], [[1; 12], [2; 12]].concat());
        assert_eq!(batch.words, [1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!(batch.labels, [1, 2]);
        assert_eq!(batch.bytes(), 2 * plan().sample_bytes());
        assert!(batcher.finish().is_none());
    }

    #[test]
    fn recycled_buffers_are_filled_again_without_allocating() {
        let pool = BatchPool::default();
        let mut batcher = Batcher::new(plan(), 1, pool.clone());
        let (s, id, c) = sample(1);
        let first = batcher.push(&s, id, c).unwrap().unwrap();
        let place = first.views[0].as_ptr();
        pool.recycle(first);
        let (s, id, c) = sample(9);
        let second = batcher.push(&s, id, c).unwrap().unwrap();
        assert_eq!(second.views[0].as_ptr(), place);
        assert_eq!((second.views[0].as_slice(), second.ids.len()), (&[9; 48][..], 1));
        assert!(pool.is_empty());
    }

    #[test]
    fn a_sample_of_another_shape_is_refused() {
        let mut batcher = Batcher::new(plan(), 2, BatchPool::default());
        let (mut s, id, c) = sample(1);
        s.views[1].pop();
        assert!(
            batcher
                .push(&s, id, c)
                .unwrap_err()
                .contains("11 bytes of a view where the plan has 12")
        );
        let (mut s, id, c) = sample(1);
        s.words.clear();
        assert!(batcher.push(&s, id, c).unwrap_err().contains("0 words"));
    }
}
