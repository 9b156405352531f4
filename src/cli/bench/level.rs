//! One run of one level.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use splitmask_pipeline::config::{DataConfig, PipelineConfig, Truncated};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::decode::{Decoder, Limits};
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::{PipelineMetrics, Progress, Stage};
use splitmask_pipeline::request::{ColourConfig, IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::run::footprint::{Footprint, Images};
use splitmask_pipeline::run::{BatchSpec, Dataset, Order, Worker};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::tokenize::Tokenizer;
use splitmask_pipeline::types::{Batch, Image, Sample, StageTimes};

use crate::config::Config;

/// What is made of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// All pixels.
    Decode,
    /// The config's views without colour.
    Crop,
    /// With colour.
    Colour,
    /// With masks and words.
    Words,
    /// In batches.
    Batch,
    /// As other loaders are measured: decoding alone.
    L1,
    /// Random crop of 224 and flip, batches of bytes.
    L2,
    /// With colour jitter, batches of normalised f32.
    L3,
}

impl Level {
    pub(super) const ALL: [Self; 8] = [
        Self::Decode,
        Self::Crop,
        Self::Colour,
        Self::Words,
        Self::Batch,
        Self::L1,
        Self::L2,
        Self::L3,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Crop => "crop",
            Self::Colour => "colour",
            Self::Words => "words",
            Self::Batch => "batch",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Decode | Self::L1 => "all pixels of every image",
            Self::Crop => "only what the views need, cropped, resized, flipped",
            Self::Colour => "with the config's colour changes",
            Self::Words => "with masks and visual words",
            Self::Batch => "everything, in batches: the whole pipeline",
            Self::L2 => "as other loaders: random crop 224 and flip, batches of 128, bytes",
            Self::L3 => "as other loaders: L2, colour jitter 0.4, normalised, f32",
        }
    }

    /// Whether visual words are made.
    pub(super) fn words(self) -> bool {
        matches!(self, Self::Words | Self::Batch)
    }
}

/// What a run took.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) images: u64,
    pub(super) wall: Duration,
    /// Images so far and resident memory then, MB; about twice a second.
    pub(super) memory: Vec<(u64, f64)>,
    /// What the settings say about memory.
    pub(super) footprint: Footprint,
    pub(super) metrics: PipelineMetrics,
}

impl Measured {
    pub(super) fn per_second(&self) -> f64 {
        self.images as f64 / self.wall.as_secs_f64()
    }

    /// Seconds that a stage worked, waited for input, waited for the next stage; over all its threads.
    pub(super) fn times(&self, stage: Stage) -> [f64; 3] {
        let m = &self.metrics;
        [m.busy.of(stage).get(), m.blocked_get.of(stage).get(), m.blocked_put.of(stage).get()]
    }
}

/// Resident memory of this process, MB: `VmRSS` now, `VmHWM` at its largest; 0 where the system does not tell.
fn resident_mb(which: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|l| l.strip_prefix(which)?.strip_prefix(':'));
    value
        .and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<f64>().ok())
        .map_or(0.0, |kib| kib * 1024.0 / 1e6)
}

/// Largest resident memory of this process so far, MB.
pub(super) fn peak_rss_mb() -> u64 {
    resident_mb("VmHWM") as u64
}

/// Settings of all runs.
pub(super) struct Bench {
    data: DataConfig,
    pipeline: PipelineConfig,
    request: SampleRequest,
    normalise: crate::tensor::Normalise,
    seed: u64,
    batch: usize,
    tokenizer: Option<Arc<Tokenizer>>,
    images: u64,
}

impl Bench {
    pub(super) fn new(config: &Config, tokenizer: Option<Arc<Tokenizer>>, images: u64) -> Self {
        Self {
            data: config.data.clone(),
            pipeline: config.pipeline.clone(),
            request: config.request(),
            normalise: config.train.normalise(),
            seed: config.run.seed,
            batch: config.train.batch as usize,
            tokenizer,
            images,
        }
    }

    /// The setting in words.
    pub(super) fn describe(&self) -> String {
        let view = &self.request.views[0];
        let views = self.request.views.len();
        let words = self.tokenizer.as_ref().map_or(String::new(), |t| {
            let book = t.codebook();
            format!(", {} words of patches of {} ({:?})", book.len(), book.patch, t.isa())
        });
        format!(
            "{} images a run, {views} view{} of {} pixels{words}",
            self.images,
            if views == 1 { "" } else { "s" },
            view.size
        )
    }

    fn request(&self, level: Level) -> SampleRequest {
        let bare = |colour: ColourConfig| {
            SampleRequest::of_views(vec![ViewRequest {
                colour,
                ..ViewRequest::new(IMAGE, 224)
            }])
        };
        let mut request = self.request.clone();
        match level {
            Level::Decode | Level::L1 => request = speck(),
            Level::Crop => {
                request
                    .views
                    .iter_mut()
                    .for_each(|v| (v.colour, v.rand_augment) = (ColourConfig::default(), None));
                (request.words, request.mask, request.hidden) = (None, None, None);
            }
            Level::Colour => (request.words, request.mask, request.hidden) = (None, None, None),
            Level::Words | Level::Batch => {}
            Level::L2 => request = bare(ColourConfig::default()),
            Level::L3 => {
                request = bare(ColourConfig {
                    jitter: 1.0,
                    jitter_strength: [0.4, 0.4, 0.4, 0.0],
                    ..ColourConfig::default()
                });
            }
        }
        request
    }

    fn worker(&self, level: Level, request: &Arc<SampleRequest>) -> Result<Worker, PipelineError> {
        let limits = Limits {
            max_pixels: self.data.max_pixels,
            max_bytes: self.data.max_member_bytes,
            keep_truncated: self.data.truncated == Truncated::Keep,
        };
        if matches!(level, Level::Decode | Level::L1) {
            let (mut decoder, mut image) = (Decoder::new(limits), Image::default());
            return Ok(Box::new(move |raw, out| {
                let start = Instant::now();
                decoder.decode(&raw.image, &mut image)?;
                let decode = start.elapsed();
                fill(out);
                Ok(StageTimes {
                    decode,
                    ..StageTimes::default()
                })
            }));
        }
        let mut maker = SampleMaker::new(Arc::clone(request), ViewMode::Train, self.seed, limits, self.tokenizer.clone())?;
        if matches!(level, Level::Batch | Level::L2 | Level::L3) {
            return Ok(Box::new(move |raw, out| maker.make(raw, out)));
        }
        // What is made stays with the worker: the level ends before batches.
        let mut made = Sample::default();
        Ok(Box::new(move |raw, out| {
            let times = maker.make(raw, &mut made)?;
            fill(out);
            Ok(times)
        }))
    }

    /// Runs one level.
    ///
    /// # Errors
    /// Those of the pipeline.
    pub(super) fn measure(&self, level: Level, bar: &ProgressBar) -> Result<Measured, PipelineError> {
        let metrics = PipelineMetrics::default();
        let dataset = Dataset::open(&self.data.train, &self.data, &self.pipeline, metrics.clone())?;
        let request = Arc::new(self.request(level));
        let whole = matches!(level, Level::Batch | Level::L2 | Level::L3);
        // Errors surface here rather than in a worker thread.
        drop(self.worker(level, &request)?);
        let start = Instant::now();
        let shape = Arc::new(if whole { (*request).clone() } else { speck() });
        let size = if matches!(level, Level::L2 | Level::L3) { 128 } else { self.batch };
        let spec = BatchSpec {
            order: Order::Shuffled {
                seed: self.seed,
                start: Cursor::default(),
                rank: 0,
                world: 1,
            },
            request: Arc::clone(&shape),
            batch: size,
            last_partial: false,
        };
        let mut stream = dataset.batches(spec, || self.worker(level, &request).expect("made before"))?;
        let mut images = 0;
        let (mut floats, mut memory, mut looked) = (vec![], vec![], Instant::now());
        while images < self.images {
            let Some(batch) = stream.next() else { break };
            let batch = batch?;
            if level == Level::L3 {
                self.to_f32(&batch, &mut floats);
            }
            images += batch.len as u64;
            bar.inc(batch.len as u64);
            stream.recycle(batch);
            if looked.elapsed() > Duration::from_millis(500) {
                memory.push((images, resident_mb("VmRSS")));
                looked = Instant::now();
            }
        }
        let wall = start.elapsed();
        drop(stream);
        // Without a manifest, what was read tells the size of a sample; a megapixel is a guess.
        let read = metrics.bytes_read.of(dataset.scheme()).get() as f64;
        let seen = Images {
            bytes: read / metrics.samples.of(Progress::Read).get().max(1) as f64,
            pixels: 1e6,
            objects: 0.0,
            masked: 0.0,
            remote: dataset.is_remote(),
        };
        let footprint = Footprint::of(&self.data, &self.pipeline, &shape, size, dataset.images().unwrap_or(seen));
        Ok(Measured {
            images,
            wall,
            memory,
            footprint,
            metrics,
        })
    }

    /// Normalised, channel by channel.
    fn to_f32(&self, batch: &Batch, out: &mut Vec<f32>) {
        let plane = 224 * 224;
        for view in &batch.views {
            out.resize(view.pixels.len(), 0.0);
            for (i, (to, from)) in out.chunks_exact_mut(plane).zip(view.pixels.chunks_exact(plane)).enumerate() {
                let (mean, std) = (self.normalise.mean[i % 3], self.normalise.std[i % 3]);
                let (scale, shift) = ((1.0 / (255.0 * std)) as f32, (-mean / std) as f32);
                to.iter_mut()
                    .zip(from)
                    .for_each(|(to, from)| *to = f32::from(*from) * scale + shift);
            }
        }
    }
}

/// A view of one pixel: batches of these cost next to nothing.
fn speck() -> SampleRequest {
    SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 1)])
}

fn fill(out: &mut Sample) {
    out.views.resize_with(1, Vec::new);
    out.views[0].clear();
    out.views[0].resize(3, 0);
    out.target.clear();
    out.words.clear();
    out.sets.clear();
    out.hidden.clear();
}
