//! Samples into batches of flat buffers, which come back to be filled again.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::cursor::Cursor;
use crate::request::{SampleRequest, picture_bytes};
use crate::types::{Batch, Sample, SampleId, TARGET, View};

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

/// Collects samples of one request.
#[derive(Debug)]
pub struct Batcher {
    request: Arc<SampleRequest>,
    capacity: usize,
    pool: BatchPool,
    current: Option<Batch>,
}

impl Batcher {
    /// Batches of `capacity` samples.
    #[must_use]
    pub fn new(request: Arc<SampleRequest>, capacity: usize, pool: BatchPool) -> Self {
        Self {
            request,
            capacity,
            pool,
            current: None,
        }
    }

    /// Copies a sample in; gives the batch when it is full.
    ///
    /// # Errors
    /// What does not fit the request: number or sizes of the sample's buffers.
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
            to.pixels.extend_from_slice(from);
        }
        if let Some(target) = &mut batch.target {
            target.pixels.extend_from_slice(&sample.target);
        }
        batch.words.extend_from_slice(&sample.words);
        batch.sets.extend_from_slice(&sample.sets);
        batch.hidden.extend_from_slice(&sample.hidden);
        batch.maps.extend_from_slice(&sample.map);
        if self.request.objects.is_some() {
            batch.objects.extend_from_slice(&sample.objects);
            batch.object_offsets.push(batch.objects.len() as u32);
        }
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
        let request = &self.request;
        let shapes = request.views.iter().map(|view| (view.name, view.size));
        let shapes = shapes.chain(request.target.map(|target| (TARGET, target.size)));
        // A consumer that outlives its stream may give back a batch of another request.
        if let Some(mut batch) = self.pool.spare()
            && batch
                .views
                .iter()
                .chain(&batch.target)
                .map(|v| (v.name.as_ref(), v.size))
                .eq(shapes)
        {
            batch.views.iter_mut().chain(&mut batch.target).for_each(|view| view.pixels.clear());
            batch.words.clear();
            batch.sets.clear();
            batch.hidden.clear();
            batch.maps.clear();
            batch.objects.clear();
            batch.object_offsets.clear();
            batch.object_offsets.extend(request.objects.map(|_| 0));
            batch.labels.clear();
            batch.ids.clear();
            batch.len = 0;
            return batch;
        }
        let n = request.patches() * self.capacity;
        let empty = |name: &'static str, size| View {
            name: name.into(),
            size,
            pixels: Vec::with_capacity(self.capacity * picture_bytes(size)),
        };
        Batch {
            len: 0,
            views: request.views.iter().map(|view| empty(view.name, view.size)).collect(),
            target: request.target.map(|target| empty(TARGET, target.size)),
            words: Vec::with_capacity(if request.words.is_some() { n } else { 0 }),
            sets: Vec::with_capacity(if request.mask.is_some() { n } else { 0 }),
            hidden: Vec::with_capacity(request.patches_that_may_hide() * self.capacity),
            maps: Vec::with_capacity(request.map_pixels() * self.capacity),
            objects: vec![],
            object_offsets: request.objects.map(|_| 0).into_iter().collect(),
            labels: Vec::with_capacity(self.capacity),
            ids: Vec::with_capacity(self.capacity),
            cursor: Cursor::default(),
        }
    }

    fn check(&self, sample: &Sample) -> Result<(), String> {
        let request = &self.request;
        let n = request.patches();
        let same = |what: &str, got: usize, want: usize| match got == want {
            true => Ok(()),
            false => Err(format!("a sample came with {got} {what} where {want} were asked for")),
        };
        same("views", sample.views.len(), request.views.len())?;
        for (pixels, view) in sample.views.iter().zip(&request.views) {
            same("bytes of a view", pixels.len(), picture_bytes(view.size))?;
        }
        same(
            "bytes of a target",
            sample.target.len(),
            request.target.map_or(0, |t| picture_bytes(t.size)),
        )?;
        same("words", sample.words.len(), if request.words.is_some() { n } else { 0 })?;
        same("patches in sets", sample.sets.len(), if request.mask.is_some() { n } else { 0 })?;
        same("patches that may hide", sample.hidden.len(), request.patches_that_may_hide())?;
        same("pixels of a map", sample.map.len(), request.map_pixels())?;
        match request.objects {
            Some(_) => Ok(()),
            None => same("objects", sample.objects.len(), 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{HiddenRequest, MaskRequest, MaskSpec, TargetRequest, ViewRequest, WordRequest};
    use crate::types::PatchSet;

    fn request() -> Arc<SampleRequest> {
        Arc::new(SampleRequest {
            views: vec![ViewRequest::new("global", 4), ViewRequest::new("local", 2)],
            words: Some(WordRequest { view: "global", patch: 2 }),
            target: Some(TargetRequest { view: "global", size: 1 }),
            mask: Some(MaskRequest {
                side: 2,
                spec: MaskSpec::UniformSplit { keep: 0.5 },
            }),
            hidden: Some(HiddenRequest {
                view: "global",
                side: 2,
                probability: 0.5,
                ratio: [0.1, 0.5],
            }),
            map: None,
            objects: None,
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
            target: vec![n; 3],
            words: vec![u32::from(n); 4],
            sets: vec![PatchSet::A; 4],
            hidden: vec![PatchSet::A; 4],
            map: vec![],
            objects: vec![],
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
        let mut batcher = Batcher::new(request(), 2, BatchPool::default());
        let (s, id, c) = sample(1);
        assert!(batcher.push(&s, id, c).unwrap().is_none());
        let (s, id, c) = sample(2);
        let batch = batcher.push(&s, id, c).unwrap().unwrap();
        assert_eq!((batch.len, batch.cursor), (2, c));
        let (global, local) = (batch.view("global").unwrap(), batch.view("local").unwrap());
        assert_eq!((global.size, &global.pixels), (4, &[[1; 48], [2; 48]].concat()));
        assert_eq!((local.size, local.picture(1)), (2, &[2; 12][..]));
        assert_eq!(batch.target.as_ref().unwrap().pixels, [1, 1, 1, 2, 2, 2]);
        assert!(batch.view("target").is_none());
        assert_eq!(batch.words, [1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!(batch.labels, [1, 2]);
        assert_eq!(batch.bytes(), 2 * request().sample_bytes());
        assert!(batcher.finish().is_none());
    }

    #[test]
    fn recycled_buffers_are_filled_again_without_allocating() {
        let pool = BatchPool::default();
        let mut batcher = Batcher::new(request(), 1, pool.clone());
        let (s, id, c) = sample(1);
        let first = batcher.push(&s, id, c).unwrap().unwrap();
        let place = first.views[0].pixels.as_ptr();
        pool.recycle(first);
        let (s, id, c) = sample(9);
        let second = batcher.push(&s, id, c).unwrap().unwrap();
        assert_eq!(second.views[0].pixels.as_ptr(), place);
        assert_eq!((second.views[0].pixels.as_slice(), second.ids.len()), (&[9; 48][..], 1));
        assert!(pool.is_empty());
    }

    #[test]
    fn buffers_of_another_request_are_not_filled() {
        let pool = BatchPool::default();
        let mut batcher = Batcher::new(request(), 1, pool.clone());
        let (s, id, c) = sample(1);
        let mut other = batcher.push(&s, id, c).unwrap().unwrap();
        other.views[1].name = "centre".into();
        pool.recycle(other);
        let (s, id, c) = sample(2);
        assert_eq!(batcher.push(&s, id, c).unwrap().unwrap().views[1].name, "local");
    }

    #[test]
    fn a_sample_of_another_shape_is_refused() {
        let mut batcher = Batcher::new(request(), 2, BatchPool::default());
        let (mut s, id, c) = sample(1);
        s.views[1].pop();
        assert!(
            batcher
                .push(&s, id, c)
                .unwrap_err()
                .contains("11 bytes of a view where 12 were asked for")
        );
        let (mut s, id, c) = sample(1);
        s.words.clear();
        assert!(batcher.push(&s, id, c).unwrap_err().contains("0 words"));
    }
}
