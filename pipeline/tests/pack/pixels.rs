//! What becomes of the pixels: shrunk, padded to squares, encoded anew, laid on a background.

use std::collections::BTreeMap;
use std::io::Cursor;

use image::{Rgb, RgbImage, Rgba, RgbaImage};
use tempfile::TempDir;

use super::{Encoding, ImageFormat, PackOptions, bytes, is_image, members, picture, put, run};

#[test]
fn shrinks_squares_and_encodes() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(
        input.path(),
        "wide.png",
        &bytes(&RgbImage::from_pixel(200, 50, Rgb([200, 0, 0])), ImageFormat::Png),
    );
    put(
        input.path(),
        "small.png",
        &bytes(&RgbImage::from_pixel(10, 20, Rgb([0, 0, 0])), ImageFormat::Png),
    );
    // By name without the index: the picture.
    let packed = |name: &str, change: &dyn Fn(&mut PackOptions)| -> BTreeMap<String, RgbImage> {
        let mut options = PackOptions::new(input.path(), out.path().join(name));
        change(&mut options);
        run(&options).unwrap();
        let images = members(&options.output.join("train")).into_iter().filter(|(n, _)| is_image(n));
        images
            .map(|(n, d)| {
                (
                    n.split_once('-').unwrap().1.to_owned(),
                    image::load_from_memory(&d).unwrap().into_rgb8(),
                )
            })
            .collect()
    };
    let size = |all: &BTreeMap<String, RgbImage>, name: &str| all[name].dimensions();
    let shrunk = packed("a", &|o| o.longest_side = Some(100));
    assert_eq!((size(&shrunk, "small.png"), size(&shrunk, "wide.png")), ((10, 20), (100, 25)));
    let square = packed("b", &|o| (o.longest_side, o.square) = (Some(100), true));
    assert_eq!((size(&square, "small.png"), size(&square, "wide.png")), ((20, 20), (100, 100)));
    let wide = &square["wide.png"];
    assert_eq!((wide.get_pixel(50, 10).0, wide.get_pixel(50, 50).0), ([255; 3], [200, 0, 0]));
    let webp = packed("c", &|o| o.encode = Encoding::Webp);
    assert_eq!((size(&webp, "small.webp"), size(&webp, "wide.webp")), ((10, 20), (200, 50)));
    assert_eq!(webp["wide.webp"].get_pixel(0, 0).0, [200, 0, 0]);
    let jpeg = packed("d", &|o| o.encode = Encoding::Jpeg(80));
    assert_eq!((size(&jpeg, "small.jpg"), size(&jpeg, "wide.jpg")), ((10, 20), (200, 50)));
    assert!(jpeg["wide.jpg"].get_pixel(100, 25).0[0].abs_diff(200) < 6);
}

/// Half red, half transparent blue: the colours beneath show, as in training, or the background that was asked for; then the file must
/// change, and a file without transparency must not.
#[test]
fn transparency_shows_what_is_beneath_or_the_background_asked_for() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let half = RgbaImage::from_fn(10, 10, |x, _| if x < 5 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 0, 255, 0]) });
    let mut png = Cursor::new(Vec::new());
    half.write_to(&mut png, ImageFormat::Png).unwrap();
    put(input.path(), "x/half.png", png.get_ref());
    let opaque = bytes(&picture(10, 10, 5), ImageFormat::Png);
    put(input.path(), "y/opaque.png", &opaque);
    for (name, background, beneath) in [
        ("as_it_is", None, [0, 0, 255]),
        ("white", Some([255; 3]), [255; 3]),
        ("red", Some([200, 0, 0]), [200, 0, 0]),
    ] {
        let options = PackOptions {
            background,
            ..PackOptions::new(input.path(), out.path().join(name))
        };
        let report = run(&options).unwrap();
        assert_eq!(report.transparent, 1, "{name}");
        let packed = members(&out.path().join(name).join("train"));
        let file = |ending: &str| &packed.iter().find(|m| m.0.ends_with(ending)).unwrap().1;
        assert_eq!(file("opaque.png"), &opaque, "{name}");
        assert_eq!(file("half.png") == png.get_ref(), background.is_none(), "{name}");
        let half = image::load_from_memory(file("half.png")).unwrap().to_rgb8();
        assert_eq!((half.get_pixel(0, 0).0, half.get_pixel(9, 9).0), ([255, 0, 0], beneath), "{name}");
    }
}
