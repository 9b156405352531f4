//! What DINO's 2 + 6 crops cost beside the sum of their parts (one decode, each crop, its colours), and beside a decode for each crop: by turns, on one
//! thread.
//!
//! `SHARDS=folder taskset -c 0 cargo bench -p splitmask-pipeline --profile dev --bench crops` (without SHARDS: made-up pictures).

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

mod corpus;
mod turns;

use std::sync::Arc;

use splitmask_pipeline::augment::{ColourDraw, CropDraw, Painter, Resampler};
use splitmask_pipeline::decode::{Decoder, Limits};
use splitmask_pipeline::request::{ColourConfig, CropConfig, SampleRequest, ViewRequest};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::seed::{Purpose, sample_rng};
use splitmask_pipeline::types::{RawSample, Sample};

const ROUNDS: usize = 9;
/// Pictures of a turn.
const PIECE: usize = 100;
const SEED: u64 = 1;

/// Two global crops and six local ones (arXiv 2104.14294 §3.1 and appendix).
fn views() -> Vec<ViewRequest> {
    let view = |name, size, area, blur, solarise| ViewRequest {
        crop: CropConfig {
            area,
            ..CropConfig::default()
        },
        colour: ColourConfig {
            jitter: 0.8,
            greyscale: 0.2,
            blur,
            solarise,
            ..ColourConfig::default()
        },
        ..ViewRequest::new(name, size)
    };
    let mut views = vec![
        view("global", 224, [0.25, 1.0], 1.0, 0.0),
        view("global", 224, [0.25, 1.0], 0.1, 0.2),
    ];
    views.extend([view("local", 96, [0.05, 0.25], 0.5, 0.0); 6]);
    views
}

fn maker(views: Vec<ViewRequest>) -> SampleMaker {
    let request = Arc::new(SampleRequest::of_views(views));
    SampleMaker::new(request, ViewMode::Train, SEED, Limits::default(), None).expect("a request that can be fulfilled")
}

/// The parts without anything around them.
struct Parts {
    decoder: Decoder,
    resampler: Resampler,
    painter: Painter,
    pixels: Vec<u8>,
}

impl Parts {
    fn make(&mut self, raw: &RawSample, views: &[ViewRequest]) {
        let header = self.decoder.header(&raw.image).expect("a whole picture");
        let (width, height) = header.upright();
        let draws: Vec<(CropDraw, ColourDraw)> = (0u32..)
            .zip(views)
            .map(|(place, view)| {
                let mut rng = sample_rng(SEED, raw.id, Purpose::View, place);
                let crop = CropDraw::of_view(width, height, view, &mut rng);
                (crop, ColourDraw::random(&view.colour, &mut rng))
            })
            .collect();
        let denominators = draws.iter().zip(views);
        let denominators = denominators.map(|((crop, _), view)| header.reduction(crop.area.width, crop.area.height, view.size));
        let denominator = denominators.min().expect("a view");
        let seen = draws.iter().map(|(crop, _)| crop.seen(width, height));
        let seen = seen.reduce(|a, b| a.union(b)).expect("a view");
        let stored = header.orientation.stored(seen, header.width, header.height);
        let window = self
            .decoder
            .window(&raw.image, &header, stored, denominator)
            .expect("a whole picture");
        for ((crop, colour), view) in draws.iter().zip(views) {
            self.resampler.view(&window, header.orientation, crop, view.size, &mut self.pixels);
            self.painter.apply(colour, &mut self.pixels, view.size as usize);
        }
    }
}

fn main() {
    let raws = corpus::jpegs();
    let views = views();
    let mut parts = Parts {
        decoder: Decoder::new(Limits::default()),
        resampler: Resampler::new(),
        painter: Painter::default(),
        pixels: vec![],
    };
    let mut together = maker(views.clone());
    let mut apart: Vec<SampleMaker> = views.iter().map(|view| maker(vec![*view])).collect();
    let mut sample = Sample::default();
    let pieces: Vec<_> = raws.chunks(PIECE).collect();
    println!("{} pictures, {ROUNDS} rounds; of one picture:", raws.len());
    turns::by_turns(
        &[
            "the parts: one decode, 8 crops",
            "2 + 6 crops of the pipeline",
            "8 crops, a decode for each",
        ],
        ROUNDS,
        pieces.len(),
        raws.len() as f64,
        |way, _, piece| {
            for raw in pieces[piece] {
                if way == 0 {
                    parts.make(raw, &views);
                    continue;
                }
                let makers = if way == 1 {
                    std::slice::from_mut(&mut together)
                } else {
                    &mut apart
                };
                for maker in makers {
                    maker.make(raw, &mut sample).expect("a whole picture");
                }
            }
        },
    );
}
