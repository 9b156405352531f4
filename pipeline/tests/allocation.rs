//! Promise: in steady state a worker allocates next to nothing for a JPEG. What is left are the
//! resizer's coefficients, one small table for each row and column of a view.
#![expect(clippy::print_stdout, reason = "a measurement that is read with --nocapture")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use splitmask_pipeline::decode::Limits;
use splitmask_pipeline::request::{ColourConfig, IMAGE, MaskRequest, MaskSpec, SampleRequest, ViewRequest, WordRequest};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::tokenize::{BookSpec, PixelSpace, Tokenizer, build_random_projection};
use splitmask_pipeline::types::{RawSample, Sample, SampleId};

thread_local! {
    static COUNT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

struct Counting;

#[expect(unsafe_code, reason = "an allocator that counts, and else is the system's")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|c| c.set((c.get().0 + 1, c.get().1 + layout.size() as u64)));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|c| c.set((c.get().0 + 1, c.get().1 + size as u64)));
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn jpeg(seed: u32, width: u32, height: u32) -> Bytes {
    let pixels: Vec<u8> = (0..width * height * 3)
        .map(|i| ((i / 3 % width * 255 / width + i / 3 / width * seed) % 256) as u8 ^ (i.wrapping_mul(2_654_435_761 + seed) >> 29) as u8)
        .collect();
    let image = turbojpeg::Image {
        pixels: &pixels[..],
        width: width as usize,
        pitch: width as usize * 3,
        height: height as usize,
        format: turbojpeg::PixelFormat::RGB,
    };
    Bytes::copy_from_slice(&turbojpeg::compress(image, 85, turbojpeg::Subsamp::Sub2x2).unwrap())
}

#[test]
fn in_steady_state_only_the_resizers_tables_are_allocated() {
    let view = |name, size| ViewRequest {
        colour: ColourConfig {
            jitter: 0.8,
            greyscale: 0.2,
            blur: 0.5,
            solarise: 0.2,
            ..ColourConfig::default()
        },
        ..ViewRequest::new(name, size)
    };
    let views = vec![view(IMAGE, 224), view("small", 96)];
    let spec = MaskSpec::BlockwiseSplit {
        min_block: 16,
        max_block: 75,
    };
    let request = Arc::new(SampleRequest {
        words: Some(WordRequest { view: IMAGE, patch: 16 }),
        mask: Some(MaskRequest { side: 14, spec }),
        ..SampleRequest::of_views(views)
    });
    let spec = BookSpec {
        words: 1024,
        patch: 8,
        pixels: PixelSpace::MeanStd,
        seed: 0,
    };
    let book = build_random_projection(&spec, [0.0, 1.0]).unwrap();
    let tokenizer = Arc::new(Tokenizer::new(Arc::new(book)));
    let mut maker = SampleMaker::new(request, ViewMode::Train, 1, Limits::default(), Some(tokenizer)).unwrap();
    let raw = |member: u32| RawSample {
        id: SampleId {
            epoch: 0,
            shard: 0,
            member,
        },
        shard: "a.tar".into(),
        key: member.to_string().as_str().into(),
        image: jpeg(member, 300 + member % 7 * 60, 280 + member % 5 * 70),
        extension: "jpg".into(),
        label: None,
        map: None,
        objects: None,
    };
    let raws: Vec<RawSample> = (0..70).map(raw).collect();
    let mut sample = Sample::default();
    // Buffers grow to their largest once.
    for raw in &raws {
        maker.make(raw, &mut sample).unwrap();
    }
    COUNT.with(|c| c.set((0, 0)));
    for raw in &raws {
        maker.make(raw, &mut sample).unwrap();
    }
    let (count, bytes) = COUNT.with(Cell::get);
    println!("{count} allocations of {bytes} bytes for {} samples", raws.len());
    // The resizer (fast_image_resize 6) makes one small table for each row and column of a view, and a few for all of them.
    let tables = (2 * (224 + 96) + 16) * raws.len() as u64;
    assert!(count <= tables, "{count} allocations, {tables} are the resizer's");
    assert!(bytes <= 96 * 1024 * raws.len() as u64, "{bytes} bytes");
}
