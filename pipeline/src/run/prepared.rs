//! Batches that were made before, through the queue of a real stream: what comes after a pipeline can be measured without one.

use std::sync::Arc;

use super::batches::{BatchStream, queue};
use crate::batch::BatchPool;
use crate::config::PipelineConfig;
use crate::cursor::Cursor;
use crate::error::PipelineError;
use crate::metrics::PipelineMetrics;
use crate::stage::Stop;
use crate::types::Batch;

impl BatchStream {
    /// Endless copies of `batches` in turn, as many waiting as `pipeline` says. Their cursors only count samples, from `start` on; a stream of a
    /// later start begins with the batch that would have come next.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] for no batch at all; [`PipelineError::Io`] for the thread.
    pub fn prepared(
        batches: Arc<[Batch]>,
        start: Cursor,
        pipeline: &PipelineConfig,
        metrics: PipelineMetrics,
    ) -> Result<Self, PipelineError> {
        let Some(len) = batches.first().map(|b| b.len) else {
            return Err(PipelineError::BadSetting {
                key: "batches".into(),
                value: "0".into(),
                detail: "at least one".into(),
            });
        };
        let (producer, consumer) = queue(pipeline, &metrics);
        let pool = BatchPool::default();
        let recycled = pool.clone();
        let first = start.before as usize / len.max(1);
        let fill = move || {
            let mut before = start.before;
            for batch in batches.iter().cycle().skip(first % batches.len()) {
                let mut copy = recycled.spare().unwrap_or_else(|| batch.clone());
                copy.len = batch.len;
                // Spare batches are copies of these, so the views agree.
                let (to, from) = (
                    copy.views.iter_mut().chain(&mut copy.target),
                    batch.views.iter().chain(&batch.target),
                );
                to.zip(from).for_each(|(to, from)| to.pixels.clone_from(&from.pixels));
                copy.words.clone_from(&batch.words);
                copy.sets.clone_from(&batch.sets);
                copy.hidden.clone_from(&batch.hidden);
                copy.maps.clone_from(&batch.maps);
                copy.objects.clone_from(&batch.objects);
                copy.object_offsets.clone_from(&batch.object_offsets);
                copy.labels.clone_from(&batch.labels);
                copy.ids.clone_from(&batch.ids);
                before += batch.len as u64;
                copy.cursor = Cursor { before, ..start };
                let bytes = copy.bytes();
                // Fails when the consumer is gone.
                if producer.put(Ok(copy), bytes).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("batch".into()).spawn(fill);
        let thread = thread.map_err(|source| PipelineError::Io {
            path: "thread batch".into(),
            source,
        })?;
        Ok(Self {
            queue: Some(consumer),
            pool,
            metrics,
            stop: Stop::default(),
            thread: Some(thread),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{SampleId, View};

    fn batch(value: u8) -> Batch {
        Batch {
            len: 2,
            views: vec![View {
                name: "image".into(),
                size: 1,
                pixels: vec![value; 6],
            }],
            target: None,
            words: vec![u32::from(value); 2],
            sets: vec![],
            hidden: vec![],
            maps: vec![],
            objects: vec![],
            object_offsets: vec![],
            labels: vec![-1; 2],
            ids: vec![
                SampleId {
                    epoch: 0,
                    shard: 0,
                    member: 0
                };
                2
            ],
            cursor: Cursor::default(),
        }
    }

    #[test]
    fn prepared_batches_come_in_turn_and_go_on_at_a_cursor() {
        let batches: Arc<[Batch]> = [1, 2, 3].map(batch).into();
        let open =
            |start| BatchStream::prepared(Arc::clone(&batches), start, &PipelineConfig::default(), PipelineMetrics::default()).unwrap();
        let mut stream = open(Cursor::default());
        let mut cursor = Cursor::default();
        for value in [1, 2, 3, 1, 2] {
            let got = stream.next().unwrap().unwrap();
            cursor = got.cursor;
            assert_eq!((&got.views, &got.words), (&batch(value).views, &batch(value).words));
            stream.recycle(got);
        }
        assert_eq!(cursor.samples(), 10);
        assert_eq!(open(cursor).next().unwrap().unwrap().words, [3, 3]);
        assert!(
            BatchStream::prepared(
                Arc::from([]),
                Cursor::default(),
                &PipelineConfig::default(),
                PipelineMetrics::default()
            )
            .is_err()
        );
    }
}
