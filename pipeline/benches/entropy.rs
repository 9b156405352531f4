//! What our JPEG entropy decoder gains: crop 224 + flip with it and by libjpeg-turbo alone, by turns, on one thread.
//!
//! `SHARDS=folder taskset -c 0 cargo bench -p splitmask-pipeline --profile dev --bench entropy` (without SHARDS: made-up pictures).

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

mod corpus;
mod turns;

use splitmask_pipeline::augment::{CropDraw, Resampler};
use splitmask_pipeline::decode::{Decoder, Limits};
use splitmask_pipeline::request::CropConfig;
use splitmask_pipeline::seed::{Purpose, sample_rng};

const ROUNDS: usize = 9;
/// Pictures of a turn.
const PIECE: usize = 100;

fn main() {
    let raws = corpus::jpegs();
    let mut ways = [
        Decoder::new(Limits::default()),
        Decoder::new(Limits::default()).by_libjpeg_turbo_alone(),
    ];
    let (mut resampler, mut out) = (Resampler::new(), vec![]);
    let pieces: Vec<_> = raws.chunks(PIECE).collect();
    println!("{} pictures, {ROUNDS} rounds; of one picture:", raws.len());
    turns::by_turns(
        &["own entropy decoder", "libjpeg-turbo alone"],
        ROUNDS,
        pieces.len(),
        raws.len() as f64,
        |way, round, piece| {
            for raw in pieces[piece] {
                let decoder = &mut ways[way];
                let header = decoder.header(&raw.image).expect("a whole picture");
                let (width, height) = header.upright();
                let mut rng = sample_rng(round as u64, raw.id, Purpose::View, 0);
                let draw = CropDraw::random(width, height, &CropConfig::default(), &mut rng);
                let denom = header.reduction(draw.area.width, draw.area.height, 224);
                let stored = header.orientation.stored(draw.seen(width, height), header.width, header.height);
                let window = decoder.window(&raw.image, &header, stored, denom).expect("a whole picture");
                resampler.view(&window, header.orientation, &draw, 224, &mut out);
            }
        },
    );
}
