//! One undecoded sample → views, visual words, mask: everything between the shard and the batch, on one thread.

use std::sync::Arc;
use std::time::Instant;

use crate::augment::{ColourDraw, CropDraw, Painter, RandAugmentDraw, RandAugmenter, Resampler, half_size, label_view, object_view};
use crate::decode::{Background, Decoder, LabelMap, Limits, MapReading, ObjectReading, Objects, Rect};
use crate::error::{PipelineError, SampleError};
use crate::mask;
use crate::request::{SampleRequest, ViewRequest};
use crate::seed::{Purpose, sample_rng};
use crate::setting::Findings;
use crate::tokenize::{Tokenizer, TokenizerScratch};
use crate::types::{RawSample, Sample, StageTimes};

/// How views are cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ViewMode {
    /// As the request says, at random.
    Train,
    /// Shorter side to `size ÷ crop_ratio`, centre crop, no flip, no colour; views with large-scale jitter show the whole picture on its ground. Bicubic,
    /// whatever the request says. Several views of a picture are cut as the request says, the same each time: equal ones would leave a loss between them
    /// nothing to judge.
    Eval {
        /// Share of the shorter side that the crop keeps (0.875 for 224 of 256).
        crop_ratio: f32,
    },
}

/// Sides that a view or a target may have, pixels.
const SIZES: std::ops::RangeInclusive<u32> = 1..=4096;

/// Makes samples, one after the other, in recycled buffers. One per worker thread.
///
/// Randomness: functions of (run seed, sample id, view index) alone, so any thread may make any sample in any order.
pub struct SampleMaker {
    request: Arc<SampleRequest>,
    /// Places of the views whose words and whose target are wanted; the first view where none are.
    word_view: usize,
    target_view: usize,
    map_view: usize,
    object_view: usize,
    limits: Limits,
    maps: MapReading,
    objects: ObjectReading,
    mode: ViewMode,
    seed: u64,
    decoder: Decoder,
    resampler: Resampler,
    augmenter: RandAugmenter,
    painter: Painter,
    tokenizer: Option<(Arc<Tokenizer>, TokenizerScratch)>,
    half: Vec<u8>,
    draws: Vec<(CropDraw, ColourDraw, RandAugmentDraw)>,
}

impl SampleMaker {
    /// Prepares to make what `request` asks for.
    ///
    /// # Errors
    /// `BadSetting` for a request that cannot be fulfilled; `BadCodebook` if words are asked for and the tokenizer is missing or of another patch.
    pub fn new(
        request: Arc<SampleRequest>,
        mode: ViewMode,
        seed: u64,
        limits: Limits,
        tokenizer: Option<Arc<Tokenizer>>,
    ) -> Result<Self, PipelineError> {
        check_request(&request)?;
        if let ViewMode::Eval { crop_ratio } = mode {
            require(
                "crop_ratio",
                crop_ratio,
                crop_ratio > 0.0 && crop_ratio <= 1.0,
                "above 0, at most 1",
            )?;
        }
        let tokenizer = request.words.is_some().then_some(tokenizer).flatten();
        if let Some(words) = request.words {
            let bad = |detail: String| PipelineError::BadCodebook {
                path: "of this run".into(),
                detail,
            };
            let book = tokenizer
                .as_ref()
                .ok_or_else(|| bad("missing, but the objective asks for visual words".into()))?
                .codebook();
            if book.patch * 2 != words.patch {
                return Err(bad(format!(
                    "its words have patches of {0} pixels on the half-size copy, the model's patch of {1} pixels needs {2}",
                    book.patch,
                    words.patch,
                    words.patch / 2
                )));
            }
        }
        let place = |view: Option<&str>| view.and_then(|name| request.place(name)).unwrap_or(0);
        Ok(Self {
            word_view: place(request.words.map(|words| words.view)),
            target_view: place(request.target.map(|target| target.view)),
            map_view: place(request.map.map(|map| map.view)),
            object_view: place(request.objects.map(|objects| objects.view)),
            limits,
            maps: MapReading::default(),
            objects: ObjectReading::default(),
            request,
            mode,
            seed,
            decoder: Decoder::new(limits),
            resampler: Resampler::new(),
            augmenter: RandAugmenter::default(),
            painter: Painter::default(),
            tokenizer: tokenizer.map(|t| {
                let scratch = t.scratch();
                (t, scratch)
            }),
            half: vec![],
            draws: vec![],
        })
    }

    /// The same, that lays transparent pictures over `background`.
    #[must_use]
    pub fn over(mut self, background: Background) -> Self {
        self.decoder = self.decoder.over(background);
        self
    }

    /// Whether a pixel of the last picture, as far as it was looked at, is not opaque.
    #[must_use]
    pub fn saw_transparency(&self) -> bool {
        self.decoder.saw_transparency()
    }

    /// The same, that reads label maps in another way than by default.
    #[must_use]
    pub fn reading_maps(mut self, maps: MapReading) -> Self {
        self.maps = maps;
        self
    }

    /// The same, that reads objects in another way than by default.
    #[must_use]
    pub fn reading_objects(mut self, objects: ObjectReading) -> Self {
        self.objects = objects;
        self
    }

    /// Makes one sample into `out`, whatever that held before.
    ///
    /// Only the part of the picture that the views need is decoded, and a JPEG at the smallest DCT scale that leaves every crop at least
    /// as large as its view.
    ///
    /// # Errors
    /// Why the sample must be dropped; `out` is then unspecified but can be used again.
    pub fn make(&mut self, raw: &RawSample, out: &mut Sample) -> Result<StageTimes, SampleError> {
        let mut times = StageTimes::default();
        let start = Instant::now();
        let header = self.decoder.header(&raw.image)?;
        times.truncated = header.truncated();
        let (width, height) = header.upright();
        // Before the picture is decoded: a map or objects that do not fit drop the sample.
        let map = match self.request.map {
            Some(_) => Some(LabelMap::of_sample(raw, &header, &self.maps, self.limits)?),
            None => None,
        };
        let objects = match self.request.objects {
            Some(_) => Some(Objects::of_sample(raw, &header, &self.objects)?),
            None => None,
        };
        self.draws.clear();
        let mut need: Option<Rect> = None;
        let mut reduction = 8;
        for (i, view) in self.request.views.iter().enumerate() {
            let (crop, colour, strong) = match self.mode {
                ViewMode::Eval { crop_ratio } if self.request.views.len() == 1 => {
                    let crop = match view.jitter {
                        Some(jitter) => CropDraw::whole(width, height, view.size, jitter.ground),
                        None => CropDraw::centre(width, height, view.size, crop_ratio),
                    };
                    (crop, ColourDraw::default(), RandAugmentDraw::default())
                }
                ViewMode::Train | ViewMode::Eval { .. } => {
                    let mut rng = sample_rng(self.seed, raw.id, Purpose::View, i as u32);
                    let crop = CropDraw::of_view(width, height, view, &mut rng);
                    let colour = ColourDraw::random(&view.colour, &mut rng);
                    (crop, colour, RandAugmentDraw::random(view.rand_augment.as_ref(), &mut rng))
                }
            };
            let target = self
                .request
                .target
                .filter(|_| i == self.target_view)
                .map_or(0, |target| target.size);
            reduction = reduction.min(header.reduction(crop.area.width, crop.area.height, view.size.max(target)));
            let seen = crop.seen(width, height);
            need = Some(need.map_or(seen, |n| n.union(seen)));
            self.draws.push((crop, colour, strong));
        }
        let need = need.unwrap_or_default();
        let stored = header.orientation.stored(need, header.width, header.height);
        let window = self.decoder.window(&raw.image, &header, stored, reduction)?;
        times.decode = start.elapsed();

        let start = Instant::now();
        out.views.resize_with(self.request.views.len(), Vec::new);
        for ((view, (crop, colour, strong)), pixels) in self.request.views.iter().zip(&self.draws).zip(&mut out.views) {
            self.resampler.view(&window, header.orientation, crop, view.size, pixels);
            self.augmenter.apply(strong, pixels, view.size as usize);
            self.painter.apply(colour, pixels, view.size as usize);
        }
        out.target.clear();
        if let Some(target) = self.request.target {
            let (crop, ..) = &self.draws[self.target_view];
            self.resampler
                .target(&window, header.orientation, crop, target.size, &mut out.target);
        }
        out.map.clear();
        if let Some((map, orientation)) = &map {
            let (crop, ..) = &self.draws[self.map_view];
            label_view(map, *orientation, crop, self.request.views[self.map_view].size, &mut out.map);
        }
        out.objects.clear();
        if let Some((objects, orientation)) = &objects {
            let (crop, ..) = &self.draws[self.object_view];
            let size = self.request.views[self.object_view].size;
            times.objects = object_view(objects, *orientation, crop, size, &mut out.objects);
        }
        out.sets.clear();
        if let Some(mask) = &self.request.mask {
            let mut rng = sample_rng(self.seed, raw.id, Purpose::Mask, 0);
            mask::fill(mask, &mut rng, &mut out.sets);
        }
        out.hidden.clear();
        if let Some(hidden) = &self.request.hidden {
            for place in self.request.places(hidden.view) {
                let mut rng = sample_rng(self.seed, raw.id, Purpose::Mask, place as u32);
                mask::hide(hidden, &mut rng, &mut out.hidden);
            }
        }
        times.augment = start.elapsed();

        out.words.clear();
        if let Some((tokenizer, scratch)) = &mut self.tokenizer {
            let start = Instant::now();
            let side = self.request.views[self.word_view].size as usize;
            half_size(&out.views[self.word_view], side, &mut self.half);
            tokenizer.words(scratch, &self.half, side / 2, &mut out.words);
            times.tokenize = start.elapsed();
        }
        out.id = Some(raw.id);
        out.label = raw.label.map_or(-1, i64::from);
        Ok(times)
    }
}

fn require(key: &str, value: impl std::fmt::Debug, ok: bool, detail: &str) -> Result<(), PipelineError> {
    if ok {
        return Ok(());
    }
    Err(PipelineError::BadSetting {
        key: key.into(),
        value: format!("{value:?}"),
        detail: detail.into(),
    })
}

fn check_request(request: &SampleRequest) -> Result<(), PipelineError> {
    require("views", request.views.len(), !request.views.is_empty(), "at least one view")?;
    request.views.iter().try_for_each(check_view)?;
    let of = |name: &str| request.place(name).and_then(|place| request.views.get(place));
    for view in &request.views {
        let size = of(view.name).map_or(0, |first| first.size);
        require(
            "size",
            view.size,
            view.size == size,
            &format!("{size}, as the other view named {}", view.name),
        )?;
    }
    if let Some(target) = request.target {
        require("target.view", target.view, of(target.view).is_some(), "the name of a view")?;
        require("target.size", target.size, SIZES.contains(&target.size), "1 to 4096 pixels")?;
    }
    let labels = [
        ("map", request.map.map(|map| map.view)),
        ("objects", request.objects.map(|objects| objects.view)),
    ];
    for (what, view) in labels.into_iter().filter_map(|(what, view)| Some((what, view?))) {
        require(&format!("{what}.view"), view, of(view).is_some(), "the name of a view")?;
        let moved = of(view).and_then(|view| view.rand_augment);
        require(
            "rand_augment",
            moved,
            moved.is_none(),
            &format!("none where labels of the view's pixels are asked for ({what}): it moves pixels of the picture and not of those"),
        )?;
    }
    if let Some(words) = request.words {
        let size = of(words.view).map_or(0, |view| view.size);
        require("words.view", words.view, size > 0, "the name of a view")?;
        let fits = words.patch >= 2 && words.patch.is_multiple_of(2) && size.is_multiple_of(words.patch);
        require(
            "patch",
            words.patch,
            fits,
            &format!("even, and a divisor of the view's size {size}"),
        )?;
        if let Some(mask) = request.mask {
            require(
                "mask side",
                mask.side,
                mask.side == size / words.patch,
                &format!("{} patches: size {size} ÷ patch {}", size / words.patch, words.patch),
            )?;
        }
    }
    if let Some(mask) = request.mask {
        let mut found = Findings::default();
        mask.spec.check("mask", mask.side, &mut found);
        first(found)?;
    }
    if let Some(hidden) = request.hidden {
        let size = of(hidden.view).map_or(0, |view| view.size);
        require("hidden.view", hidden.view, size > 0, "the name of a view")?;
        let fits = hidden.side >= 2 && size.is_multiple_of(hidden.side);
        require(
            "hidden.side",
            hidden.side,
            fits,
            &format!("at least 2, and a divisor of the view's size {size}"),
        )?;
        let mut found = Findings::default();
        hidden.check("hidden.", &mut found);
        first(found)?;
    }
    Ok(())
}

fn check_view(view: &ViewRequest) -> Result<(), PipelineError> {
    require("size", view.size, SIZES.contains(&view.size), "1 to 4096 pixels")?;
    let mut found = Findings::default();
    view.crop.check("crop", &mut found);
    view.colour.check("colour", &mut found);
    if let Some(jitter) = view.jitter {
        jitter.check("jitter.scale", &mut found);
    }
    if let Some(strong) = view.rand_augment {
        strong.check("rand_augment", &mut found);
    }
    first(found)
}

/// The first violation as an error.
fn first(found: Findings) -> Result<(), PipelineError> {
    found.found().into_iter().next().map_or(Ok(()), |v| Err(v.into()))
}

#[cfg(test)]
mod map_tests;
#[cfg(test)]
mod object_tests;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod tests;
