//! Requests that no sample can fulfil.

use super::tests::view;
use super::*;
use crate::request::{HiddenRequest, IMAGE, MaskRequest, MaskSpec, TargetRequest, WordRequest};

#[test]
fn requests_that_cannot_be_fulfilled_are_refused_with_key_and_range() {
    let refused = |request: SampleRequest, mode: ViewMode| {
        SampleMaker::new(Arc::new(request), mode, 0, Limits::default(), None)
            .err()
            .unwrap()
            .to_string()
    };
    let with = |change: fn(&mut ViewRequest)| {
        let mut v = view(64);
        change(&mut v);
        SampleRequest::of_views(vec![v])
    };
    let words = |view_name, patch| SampleRequest {
        words: Some(WordRequest { view: view_name, patch }),
        ..SampleRequest::of_views(vec![view(64)])
    };
    let masked = |side| SampleRequest {
        mask: Some(MaskRequest {
            side,
            spec: MaskSpec::UniformSplit { keep: 0.25 },
        }),
        ..SampleRequest::of_views(vec![view(64)])
    };
    let target = |view_name, size| SampleRequest {
        target: Some(TargetRequest { view: view_name, size }),
        ..SampleRequest::of_views(vec![view(64)])
    };
    let hidden = |view_name, side, probability| SampleRequest {
        hidden: Some(HiddenRequest {
            view: view_name,
            side,
            probability,
            ratio: [0.1, 0.5],
        }),
        ..SampleRequest::of_views(vec![view(64)])
    };
    for (message, expected) in [
        (refused(hidden("local", 8, 0.5), ViewMode::Train), "hidden.view = \"local\""),
        (refused(hidden(IMAGE, 7, 0.5), ViewMode::Train), "hidden.side = 7"),
        (refused(hidden(IMAGE, 8, 2.0), ViewMode::Train), "hidden.probability = "),
        (refused(SampleRequest::of_views(vec![]), ViewMode::Train), "views = 0"),
        (refused(with(|v| v.size = 0), ViewMode::Train), "size = 0: 1 to 4096"),
        (
            refused(with(|v| v.crop.area = [0.5, 0.1]), ViewMode::Train),
            "crop.area = [0.5, 0.1]",
        ),
        (refused(with(|v| v.crop.flip = f32::NAN), ViewMode::Train), "crop.flip = NaN"),
        (
            refused(with(|v| v.colour.blur_sigma = [0.1, 99.0]), ViewMode::Train),
            "colour.blur_sigma",
        ),
        (
            refused(with(|v| v.colour.jitter_strength[3] = 0.6), ViewMode::Train),
            "hue at most 0.5",
        ),
        (
            refused(SampleRequest::of_views(vec![view(64), view(32)]), ViewMode::Train),
            "size = 32: 64, as the other",
        ),
        (refused(words(IMAGE, 7), ViewMode::Train), "patch = 7"),
        (refused(words(IMAGE, 8), ViewMode::Train), "missing"),
        (refused(words("local", 8), ViewMode::Train), "words.view = \"local\""),
        (refused(target("local", 8), ViewMode::Train), "target.view = \"local\""),
        (refused(target(IMAGE, 0), ViewMode::Train), "target.size = 0"),
        (refused(masked(1), ViewMode::Train), "grid of 1 × 1"),
        (
            refused(SampleRequest::of_views(vec![view(64)]), ViewMode::Eval { crop_ratio: 0.0 }),
            "crop_ratio = 0.0",
        ),
    ] {
        assert!(message.contains(expected), "{message:?} has no {expected:?}");
    }
}
