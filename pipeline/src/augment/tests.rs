use fast_image_resize as fr;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::decode::Rect;
use crate::request::{ColourConfig, Filter};

fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random()).collect()
}

/// Smooth picture with all hues and greys.
fn picture(width: u32, height: u32) -> Image {
    let mut pixels = vec![];
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
            for c in 0..3 {
                pixels.push((127.5 + 120.0 * (6.0 * u + 4.0 * v * v + f64::from(c) * (1.0 + u)).sin()) as u8);
            }
        }
    }
    Image { width, height, pixels }
}

#[test]
fn a_crop_of_the_views_size_is_copied_and_flipped_exactly() {
    let image = picture(40, 30);
    let draw = CropDraw {
        area: Rect {
            x: 7.0,
            y: 3.0,
            width: 16.0,
            height: 16.0,
        },
        flip: false,
        filter: Filter::Bicubic,
        margin: 0.0,
        ground: [0; 3],
    };
    let (mut resampler, mut out, mut flipped) = (Resampler::new(), vec![], vec![]);
    resampler.view(&Window::whole(&image), Orientation::default(), &draw, 16, &mut out);
    resampler.view(
        &Window::whole(&image),
        Orientation::default(),
        &CropDraw { flip: true, ..draw },
        16,
        &mut flipped,
    );
    for c in 0..3 {
        for y in 0..16 {
            for x in 0..16 {
                let pixel = image.pixels[((y + 3) * 40 + x + 7) * 3 + c];
                assert_eq!(out[c * 256 + y * 16 + x], pixel);
                assert_eq!(flipped[c * 256 + y * 16 + 15 - x], pixel);
            }
        }
    }
}

/// A grey picture of `from` × `from` pixels resized to `to` × `to`. Each byte is within a level of the rule that Pillow publishes for its filters: weights
/// by `kernel`, which the reduction widens, and normalised (here in f64 without its 8 bits between the passes).
fn resized(from: u32, to: u32, filter: Filter, kernel: fn(f64) -> f64) -> Vec<u8> {
    let value = |x: u32, y: u32| (x * x * 7 + y * 31) % 251;
    let places = move || (0..from).flat_map(move |y| (0..from).map(move |x| (x, y)));
    let image = Image {
        width: from,
        height: from,
        pixels: places().flat_map(|(x, y)| [value(x, y) as u8; 3]).collect(),
    };
    let draw = CropDraw {
        area: Rect {
            x: 0.0,
            y: 0.0,
            width: from.into(),
            height: from.into(),
        },
        flip: false,
        filter,
        margin: 0.0,
        ground: [0; 3],
    };
    let mut out = vec![];
    Resampler::new().view(&Window::whole(&image), Orientation::default(), &draw, to, &mut out);
    out.truncate((to * to) as usize);

    let scale = f64::from(from) / f64::from(to);
    let weights = |o: u32| -> Vec<f64> {
        let centre = (f64::from(o) + 0.5) * scale;
        let w: Vec<f64> = (0..from).map(|i| kernel((f64::from(i) + 0.5 - centre) / scale.max(1.0))).collect();
        let sum: f64 = w.iter().sum();
        w.into_iter().map(|v| v / sum).collect()
    };
    for (at, got) in (0..to * to).zip(&out) {
        let (wx, wy) = (weights(at % to), weights(at / to));
        let exact: f64 = places()
            .map(|(x, y)| wx[x as usize] * wy[y as usize] * f64::from(value(x, y)))
            .sum();
        let off = (f64::from(*got) - exact.clamp(0.0, 255.0)).abs();
        assert!(off <= 1.01, "{filter:?}, {from} to {to}, pixel {at}: {got} {exact}");
    }
    out
}

#[test]
fn the_resize_is_pillows_bicubic() {
    let kernel = |t: f64| {
        let t = t.abs();
        if t < 1.0 {
            (1.5 * t - 2.5) * t * t + 1.0
        } else if t < 2.0 {
            ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
        } else {
            0.0
        }
    };
    // The bytes of Pillow 13.0.
    assert_eq!(resized(5, 3, Filter::Bicubic, kernel), [12, 40, 104, 63, 91, 155, 114, 142, 206]);
}

#[test]
fn the_resize_is_pillows_bilinear() {
    let kernel = |t: f64| (1.0 - t.abs()).max(0.0);
    // The bytes of Pillow 13.0.
    assert_eq!(resized(5, 3, Filter::Bilinear, kernel), [16, 44, 104, 65, 93, 153, 114, 142, 202]);
    for (from, to) in [(29, 8), (64, 7), (3, 10)] {
        assert_eq!(resized(from, to, Filter::Bilinear, kernel).len(), (to * to) as usize);
    }
}

#[test]
fn the_evaluation_view_is_resize_then_centre_crop() {
    let image = picture(301, 203);
    let mut one_pass = vec![];
    Augmenter::new().eval_view(&image, 64, 0.875, &mut one_pass);
    // Two passes: the whole picture to 108×73, then columns 22.. and rows 4.. (round half to even of 22 and 4.5).
    let source = fr::images::TypedImageRef::<fr::pixels::U8x3>::from_buffer(301, 203, &image.pixels).unwrap();
    let mut whole = vec![0; 3 * 108 * 73];
    let mut target = fr::images::TypedImage::<fr::pixels::U8x3>::from_buffer(108, 73, &mut whole).unwrap();
    let options = fr::ResizeOptions::new().resize_alg(fr::ResizeAlg::Convolution(fr::FilterType::CatmullRom));
    fr::Resizer::new().resize_typed(&source, &mut target, &options).unwrap();
    for c in 0..3 {
        for y in 0..64 {
            for x in 0..64 {
                let expected = whole[((y + 4) * 108 + x + 22) * 3 + c];
                assert!(one_pass[c * 4096 + y * 64 + x].abs_diff(expected) <= 1, "{c} {y} {x}");
            }
        }
    }
}

/// torchvision's operations on one pixel or view, transcribed operation by operation in f64.
mod reference {
    fn cast(v: f64) -> f64 {
        v.clamp(0.0, 255.0).floor()
    }

    pub(super) fn grey(p: [f64; 3]) -> f64 {
        (0.2989 * p[0] + 0.587 * p[1] + 0.114 * p[2]).floor()
    }

    pub(super) fn blend(p: [f64; 3], other: f64, f: f64) -> [f64; 3] {
        p.map(|v| cast(f * v + (1.0 - f) * other))
    }

    pub(super) fn hue(p: [f64; 3], shift: f64) -> [f64; 3] {
        let [r, g, b] = p.map(|v| v / 255.0);
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let c = max - min;
        let s = c / if c == 0.0 { 1.0 } else { max };
        let div = if c == 0.0 { 1.0 } else { c };
        let (rc, gc, bc) = ((max - r) / div, (max - g) / div, (max - b) / div);
        let h = if max == r {
            bc - gc
        } else if max == g {
            2.0 + rc - bc
        } else {
            4.0 + gc - rc
        };
        let h = (h / 6.0 + 1.0).fract();
        let h = (h + shift).rem_euclid(1.0);
        let i = (h * 6.0).floor();
        let f = h * 6.0 - i;
        let (v, i) = (max, i as i32 % 6);
        let one = |x: f64| x.clamp(0.0, 1.0);
        let (p, q, t) = (one(v * (1.0 - s)), one(v * (1.0 - s * f)), one(v * (1.0 - s * (1.0 - f))));
        [[v, t, p], [q, v, p], [p, v, t], [p, q, v], [t, p, v], [v, p, q]][i as usize].map(|v| (v * 255.999).floor())
    }
}

#[test]
fn colour_jitter_is_torchvisions_in_every_order() {
    let side = 40;
    let n = side * side;
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for round in 0..60 {
        let view = noise(3 * n, round);
        let config = ColourConfig {
            jitter: 1.0,
            jitter_strength: [0.4, 0.4, 0.2, 0.5],
            greyscale: 0.2,
            solarise: 0.3,
            ..ColourConfig::default()
        };
        let draw = ColourDraw::random(&config, &mut rng);
        let mut ours = view.clone();
        Painter::default().apply(&draw, &mut ours, side);

        let mut pixels: Vec<[f64; 3]> = (0..n).map(|i| [0, 1, 2].map(|c| f64::from(view[c * n + i]))).collect();
        let jitter = draw.jitter.unwrap();
        for which in jitter.order {
            let f = f64::from(jitter.factors[usize::from(which)]);
            let mean = pixels.iter().map(|p| reference::grey(*p)).sum::<f64>() / n as f64;
            for p in &mut pixels {
                *p = match which {
                    0 => reference::blend(*p, 0.0, f),
                    1 => reference::blend(*p, mean, f),
                    2 => reference::blend(*p, reference::grey(*p), f),
                    _ => reference::hue(*p, f),
                };
            }
        }
        let mut worst = 0.0f64;
        let mut off = 0;
        for (i, p) in pixels.iter().enumerate() {
            let p = if draw.grey { [reference::grey(*p); 3] } else { *p };
            let p = if draw.solarise {
                p.map(|v| if v >= 128.0 { 255.0 - v } else { v })
            } else {
                p
            };
            for (c, &v) in p.iter().enumerate() {
                let mut d = (f64::from(ours[c * n + i]) - v).abs();
                // A value that rounding moves across the solarisation threshold lands on its mirror image.
                if draw.solarise {
                    d = d.min((255.0 - f64::from(ours[c * n + i]) - v).abs());
                }
                worst = worst.max(d);
                off += u32::from(d > 0.0);
            }
        }
        assert!(worst <= 2.0, "round {round}: {worst} levels, {draw:?}");
        assert!(off < 3 * n as u32 / 50, "round {round}: {off} values differ");
    }
}

#[test]
fn greyscale_and_solarise_alone_are_exact() {
    let side = 37;
    let n = side * side;
    let view = noise(3 * n, 9);
    let mut grey = view.clone();
    Painter::default().apply(
        &ColourDraw {
            grey: true,
            ..ColourDraw::default()
        },
        &mut grey,
        side,
    );
    let mut solar = view.clone();
    Painter::default().apply(
        &ColourDraw {
            solarise: true,
            ..ColourDraw::default()
        },
        &mut solar,
        side,
    );
    for i in 0..n {
        let p = [0, 1, 2].map(|c| f64::from(view[c * n + i]));
        for c in 0..3 {
            assert!((f64::from(grey[c * n + i]) - reference::grey(p)).abs() <= 1.0);
            let v = view[c * n + i];
            assert_eq!(solar[c * n + i], if v >= 128 { 255 - v } else { v });
        }
    }
}

#[test]
fn blur_is_the_gaussian_of_f64_within_a_level() {
    for (side, sigma) in [(33usize, 0.1f64), (33, 0.5), (48, 1.0), (224, 2.0), (5, 3.0), (1, 1.0), (2, 2.0)] {
        let n = side * side;
        let view = noise(3 * n, side as u64);
        let mut ours = view.clone();
        Painter::default().apply(
            &ColourDraw {
                blur: Some(sigma as f32),
                ..ColourDraw::default()
            },
            &mut ours,
            side,
        );
        let radius = ((3.0 * sigma).ceil() as isize).min(side as isize - 1);
        let taps: Vec<f64> = (-radius..=radius).map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp()).collect();
        let sum: f64 = taps.iter().sum();
        let at = |i: isize| {
            let last = side as isize - 1;
            (last - (last - i.abs()).abs()) as usize
        };
        let pass = |plane: &[f64], dx: isize, dy: isize| -> Vec<f64> {
            (0..n as isize)
                .map(|i| {
                    let (x, y) = (i % side as isize, i / side as isize);
                    (-radius..=radius)
                        .zip(&taps)
                        .map(|(k, t)| t / sum * plane[at(y + k * dy) * side + at(x + k * dx)])
                        .sum()
                })
                .collect()
        };
        for c in 0..3 {
            let plane: Vec<f64> = view[c * n..][..n].iter().map(|&v| f64::from(v)).collect();
            let exact = pass(&pass(&plane, 0, 1), 1, 0);
            for (o, e) in ours[c * n..][..n].iter().zip(exact) {
                assert!((f64::from(*o) - e).abs() <= 0.51, "side {side} sigma {sigma}: {o} {e}");
            }
        }
    }
}

#[test]
fn the_same_stream_gives_the_same_view() {
    let image = picture(120, 90);
    let spec = ViewRequest {
        colour: ColourConfig {
            jitter: 0.8,
            greyscale: 0.2,
            blur: 0.5,
            solarise: 0.2,
            ..ColourConfig::default()
        },
        ..ViewRequest::new("image", 48)
    };
    let mut a = Augmenter::new();
    let mut views = vec![];
    for seed in [1, 2, 1] {
        let mut out = vec![];
        a.train_view(&image, &spec, &mut ChaCha8Rng::seed_from_u64(seed), &mut out);
        views.push(out);
    }
    assert_eq!(views[0], views[2]);
    assert_ne!(views[0], views[1]);
}

#[test]
fn a_box_that_begins_exactly_on_a_pixel_reads_no_memory_beside_it() {
    let pixels = (0..64 * 64)
        .flat_map(|at| [(at % 64) * 4, (at / 64) * 4, 90].map(|v| v as u8))
        .collect();
    let picture = Image {
        width: 64,
        height: 64,
        pixels,
    };
    let seen = |filter: Filter, x: f64, y: f64, flip: bool| {
        let area = Rect {
            x,
            y,
            width: 32.0,
            height: 32.0,
        };
        let draw = CropDraw {
            area,
            flip,
            filter,
            margin: 3.0,
            ground: [0; 3],
        };
        let mut out = vec![];
        Resampler::new().view(&Window::whole(&picture), Orientation::default(), &draw, 64, &mut out);
        out
    };
    // Half a pixel a step: with a quarter in front the first one lies on a pixel, with three quarters the last one.
    for (x, y) in [(10.25, 10.25), (10.75, 10.75), (0.25, 31.75), (31.75, 0.25)] {
        for (filter, flip) in [Filter::Bicubic, Filter::Bilinear]
            .into_iter()
            .flat_map(|f| [(f, false), (f, true)])
        {
            let (on, beside) = (seen(filter, x, y, flip), seen(filter, x + 1e-4, y - 1e-4, flip));
            assert!(on.iter().zip(&beside).all(|(a, b)| a.abs_diff(*b) <= 1), "{filter:?} {x} {y}");
        }
    }
}
